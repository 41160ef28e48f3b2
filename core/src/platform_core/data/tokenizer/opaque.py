"""The tokenizer of a network whose vocabulary is known by its size alone.

Imported checkpoints have it until `--tokenizer` names a real one: samples are ids, and text cannot
be read.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NoReturn, final

from platform_core.data.tokenizer.base import Ids, Tokenizer
from platform_core.errors import UsageError


@final
class OpaqueTokenizer(Tokenizer):
    """So many ids without a text.

    Args:
        vocab_size: their number.
    """

    kind = "opaque"

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return self._vocab_size

    @property
    def pad_id(self) -> int:
        self._refuse()

    @property
    def bos_id(self) -> int:
        self._refuse()

    @property
    def eos_id(self) -> int:
        self._refuse()

    @property
    def special(self) -> Mapping[str, int]:
        self._refuse()

    @property
    def unknown_id(self) -> None:
        """None: no text is read."""

    def encode_all(self, texts: Iterable[str]) -> Iterator[Ids]:
        """Refused, whatever the texts."""
        self._refuse()

    def decode(self, ids: Iterable[int] | Ids) -> str:
        """The ids in decimal, a space between them."""
        return " ".join(str(int(i)) for i in ids)

    def count_characters(self, ids: Ids) -> int:
        self._refuse()

    def with_unknown(self, unknown: Literal["error", "replace"]) -> "OpaqueTokenizer":
        return self

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "vocab_size": self._vocab_size}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "OpaqueTokenizer":
        """The inverse of `to_dict`."""
        return cls(values["vocab_size"])

    def _refuse(self) -> NoReturn:
        raise UsageError(
            f"of this network's {self._vocab_size} tokens only the number is known; import its "
            "checkpoint again with --tokenizer FILE, the tokenizer.json of a run"
        )
