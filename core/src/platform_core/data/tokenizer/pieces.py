"""Base class of tokenizers of pieces of text: a subclass only says how to cut a text.

    class Lines(PieceTokenizer):
        kind = "lines"

        @classmethod
        def cut(cls, text):
            return text.splitlines(keepends=True)

Ids are padding, the beginning and the end of a document, the unknown piece, then the pieces of the
corpus in alphabetical order.
"""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np

from platform_core.data.tokenizer.base import LEFT_OVER, BuiltTokenizer, Ids, Unknown
from platform_core.errors import UsageError

SPECIAL = ("[PAD]", "[BOS]", "[EOS]", "[UNK]")


class PieceTokenizer(BuiltTokenizer):
    """One token for each different piece that the texts of a corpus are cut into.

    Args:
        pieces: pieces of the vocabulary, after the special tokens.
        unknown: stop at a piece outside the vocabulary, or read it as [UNK].
    """

    pad_id, bos_id, eos_id, unknown_id = range(len(SPECIAL))

    def __init__(self, pieces: Sequence[str], unknown: Unknown = "error") -> None:
        self.pieces, self.unknown = tuple(pieces), unknown
        self._ids = {piece: len(SPECIAL) + i for i, piece in enumerate(self.pieces)}
        self._spelt = ("", *SPECIAL[1:], *self.pieces)

    @classmethod
    @abstractmethod
    def cut(cls, text: str) -> Sequence[str]:
        """The pieces of a text, none of them empty; joined again, the pieces are the text."""

    @property
    def vocab_size(self) -> int:
        return len(self._spelt)

    @property
    def special(self) -> Mapping[str, int]:
        return {name: i for i, name in enumerate(SPECIAL) if i != self.pad_id}

    def encode_all(self, texts: Iterable[str]) -> Iterator[Ids]:
        ids_type = np.min_scalar_type(self.vocab_size - 1)
        for text in texts:
            pieces = self.cut(text)
            if self.unknown == "error" and (lacking := set(pieces) - self._ids.keys()):
                raise UsageError(
                    f"the vocabulary of {len(self.pieces)} pieces lacks {min(lacking)!r}; "
                    "--data.unknown replace reads such pieces as [UNK]"
                )
            ids = [self._ids.get(piece, self.unknown_id) for piece in pieces]
            yield np.array(ids, dtype=ids_type)

    def decode(self, ids: Iterable[int] | Ids) -> str:
        return "".join(self._spelt[i] if i < self.vocab_size else LEFT_OVER for i in ids)

    def count_characters(self, ids: Ids) -> int:
        """Number of characters of the pieces; an unknown piece counts as one character."""
        lengths = np.array([0, 0, 0, 1, *map(len, self.pieces)])
        return int(lengths[ids].sum())

    def with_unknown(self, unknown: Unknown) -> Self:
        return type(self)(self.pieces, unknown)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "pieces": list(self.pieces), "unknown": self.unknown}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        return cls(values["pieces"], values["unknown"])

    @classmethod
    def of_texts(cls, texts: Iterable[str]) -> Self:
        return cls(sorted({piece for text in texts for piece in cls.cut(text)}))
