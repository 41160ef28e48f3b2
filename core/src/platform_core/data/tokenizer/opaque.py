"""The tokenizer of a network of whose vocabulary only the size is known.

Imported checkpoints have this tokenizer until `--tokenizer` names a real one: samples are ids, and
text cannot be read.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NoReturn, final

from platform_core.data.tokenizer.base import Ids, Tokenizer
from platform_core.errors import UsageError


@final
class OpaqueTokenizer(Tokenizer):
    """A vocabulary of ids without texts.

    Args:
        vocab_size: number of ids.
    """

    kind = "opaque"

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size

    @property
    def vocab_size(self) -> int:
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
        """None, because this tokenizer encodes no text."""

    def encode_all(self, texts: Iterable[str]) -> Iterator[Ids]:
        """Raise UsageError, whatever the texts."""
        self._refuse()

    def decode(self, ids: Iterable[int] | Ids) -> str:
        """The ids in decimal, separated by spaces."""
        return " ".join(str(int(i)) for i in ids)

    def count_characters(self, ids: Ids) -> int:
        self._refuse()

    def with_unknown(self, unknown: Literal["error", "replace"]) -> "OpaqueTokenizer":
        return self

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "vocab_size": self._vocab_size}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "OpaqueTokenizer":
        size = values["vocab_size"]
        if type(size) is not int or size < 1:
            raise ValueError(f"vocab_size is {size!r}, and must be a number of ids, at least 1")
        return cls(size)

    def _refuse(self) -> NoReturn:
        raise UsageError(
            f"the text of this network's {self._vocab_size} tokens is not known; import its "
            "checkpoint again with --tokenizer FILE, the tokenizer.json of a run"
        )
