"""Tokenizer with one token per character, of a corpus or of text8."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, final

import numpy as np
import numpy.typing as npt

from platform_core.data.tokenizer.base import LEFT_OVER, BuiltTokenizer, Encoded, Ids, Unknown
from platform_core.errors import UsageError

SPECIAL_TOKENS = ("[PAD]", "[BOS]", "[EOS]", "[UNK]")
"""The first tokens of every character vocabulary."""

TEXT8 = " abcdefghijklmnopqrstuvwxyz"
"""All characters of text8. Text is not normalised, so any other character is unknown."""


@final
class CharacterTokenizer(BuiltTokenizer):
    """One token per character: `SPECIAL_TOKENS`, then the characters by code point.

    Args:
        characters: characters of the vocabulary, in any order.
        unknown: stop at a character outside the vocabulary, or read it as [UNK].
    """

    kind = "character"
    pad_id, bos_id, eos_id, unknown_id = range(len(SPECIAL_TOKENS))

    def __init__(self, characters: Sequence[str], unknown: Unknown = "error") -> None:
        self.characters = "".join(sorted(set(characters)))
        self.unknown = unknown
        points = _code_points(self.characters)
        # The entry after the highest code point stands for all higher ones.
        highest = int(points.max(initial=0)) + 1
        ids_type = np.min_scalar_type(self.vocab_size - 1)
        self._ids = np.full(highest + 1, self.unknown_id, dtype=ids_type)
        self._ids[points] = np.arange(len(SPECIAL_TOKENS), self.vocab_size)
        self._pieces = ("", *SPECIAL_TOKENS[1:], *self.characters)

    @property
    def vocab_size(self) -> int:
        """Number of special tokens and characters."""
        return len(SPECIAL_TOKENS) + len(self.characters)

    @property
    def special(self) -> Mapping[str, int]:
        """Ids of [BOS], [EOS] and [UNK] by name."""
        return {name: i for i, name in enumerate(SPECIAL_TOKENS) if i != self.pad_id}

    def encode_all(self, texts: Iterable[str]) -> Iterator[Ids]:
        """Ids of each text, one per character."""
        return map(self._encode, texts)

    def encode_counted(self, texts: Iterable[str]) -> Iterator[Encoded]:
        """Ids of each text, which stand for one character each."""
        return (Encoded(ids, np.ones(len(ids), np.uint32)) for ids in self.encode_all(texts))

    def decode(self, ids: Iterable[int] | Ids) -> str:
        """Readable text of ids, with [BOS], [EOS] and [UNK] by name."""
        return "".join(self._pieces[i] if i < self.vocab_size else LEFT_OVER for i in ids)

    def count_characters(self, ids: Ids) -> int:
        """Number of ids other than padding, beginnings and ends."""
        return int(np.count_nonzero(ids > self.eos_id))

    def with_unknown(self, unknown: Unknown) -> "CharacterTokenizer":
        return CharacterTokenizer(self.characters, unknown)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with the characters in the order of their ids."""
        return {"kind": self.kind, "characters": self.characters, "unknown": self.unknown}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "CharacterTokenizer":
        return cls(values["characters"], values["unknown"])

    @classmethod
    def of_texts(cls, texts: Iterable[str]) -> "CharacterTokenizer":
        """The tokenizer of every character that occurs in the texts."""
        characters: set[str] = set()
        for text in texts:
            characters.update(text)
        return cls("".join(characters))

    def _encode(self, text: str) -> Ids:
        points = _code_points(text)
        ids: Ids = self._ids[np.minimum(points, len(self._ids) - 1)]
        if self.unknown == "error" and (ids == self.unknown_id).any():
            raise UsageError(self._lacking(text))
        return ids

    def _lacking(self, text: str) -> str:
        lacking = sorted(set(text) - set(self.characters))
        named = ", ".join(f"{character!r} (U+{ord(character):04X})" for character in lacking[:5])
        more = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
        return (
            f"the tokenizer's {len(self.characters)} characters lack {named}{more}; "
            "`--data.unknown replace` reads them as [UNK]"
        )


def _code_points(text: str) -> npt.NDArray[np.uint32]:
    # Text from a command line may hold lone surrogates; they are characters like any other here.
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
