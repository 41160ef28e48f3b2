"""The tokenizer: words and what stands between them as token ids, and back.

Ids are 0 .. vocab_size - 1: padding, the beginning and the end of a document, the unknown token,
then the pieces of the corpus. Pieces are joined without anything between them, so text comes back
as it was.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, final

import numpy as np

from platform_core.data.tokenizer.base import LEFT_OVER, BuiltTokenizer, Ids, Unknown
from platform_core.errors import UsageError

SPECIAL = ("[PAD]", "[BOS]", "[EOS]", "[UNK]")


@final
class NewPart(BuiltTokenizer):
    """One token for each word, space or other sign of the corpus.

    Args:
        pieces: of the vocabulary, behind the special tokens.
        unknown: stop at a piece that is not among them, or read it as [UNK].
    """

    kind = "new-part"
    pad_id, bos_id, eos_id, unknown_id = range(len(SPECIAL))

    def __init__(self, pieces: Sequence[str], unknown: Unknown = "error") -> None:
        self.pieces, self.unknown = tuple(pieces), unknown
        self._ids = {piece: len(SPECIAL) + i for i, piece in enumerate(self.pieces)}

    @property
    def vocab_size(self) -> int:
        return len(SPECIAL) + len(self.pieces)

    @property
    def special(self) -> Mapping[str, int]:
        return {name: i for i, name in enumerate(SPECIAL) if i != self.pad_id}

    def encode_all(self, texts: Iterable[str]) -> Iterator[Ids]:
        for text in texts:
            pieces = re.findall(r"\w+|\W", text)
            lacking = sorted(set(pieces) - self._ids.keys())
            if lacking and self.unknown == "error":
                raise UsageError(
                    f"the vocabulary lacks {lacking[0]!r}; --data.unknown replace reads such words "
                    "as [UNK]"
                )
            ids = [self._ids.get(piece, self.unknown_id) for piece in pieces]
            yield np.array(ids, dtype=np.min_scalar_type(self.vocab_size))

    def decode(self, ids: Iterable[int] | Ids) -> str:
        spelt = ("", *SPECIAL[1:], *self.pieces)
        return "".join(spelt[i] if i < self.vocab_size else LEFT_OVER for i in ids)

    def count_characters(self, ids: Ids) -> int:
        lengths = np.array([0, 0, 0, 1, *map(len, self.pieces)])
        return int(lengths[ids].sum())

    def with_unknown(self, unknown: Unknown) -> "NewPart":
        return NewPart(self.pieces, unknown)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "pieces": list(self.pieces), "unknown": self.unknown}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "NewPart":
        return cls(values["pieces"], values["unknown"])

    @classmethod
    def of_texts(cls, texts: Iterable[str]) -> "NewPart":
        return cls(sorted({piece for text in texts for piece in re.findall(r"\w+|\W", text)}))
