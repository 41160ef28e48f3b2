"""Tokenizers: text as token ids and back.

Ids are 0 .. vocab_size - 1 and hold padding, the beginning and the end of a document besides the
text. The mask of a masking process is not among them: the process puts it after the vocabulary.
Used by `data`, `generate` and the run directory; no torch.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from platform_core.errors import UsageError

Ids = npt.NDArray[np.unsignedinteger[Any]]
"""Token ids in the smallest type that holds the vocabulary; one dimension."""

SPECIAL_TOKENS = ("[PAD]", "[BOS]", "[EOS]", "[UNK]")
"""The first tokens of every character vocabulary."""

LEFT_OVER = "▒"
"""Shown for ids outside the vocabulary: masks that sampling left in place."""


class Tokenizer(ABC):
    """What data and generation need of any tokenizer; immutable."""

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Number of token ids."""

    @property
    @abstractmethod
    def pad_id(self) -> int:
        """Fills up the last sequence; never a target, never the mask."""

    @property
    @abstractmethod
    def bos_id(self) -> int:
        """Begins every document."""

    @property
    @abstractmethod
    def eos_id(self) -> int:
        """Ends every document."""

    @abstractmethod
    def encode(self, text: str) -> Ids:
        """Ids of the text alone.

        Raises:
            UsageError: the vocabulary lacks a character, and unknown ones are errors.
        """

    @abstractmethod
    def decode(self, ids: Iterable[int] | Ids) -> str:
        """Text to read: without padding, ids outside the vocabulary as `LEFT_OVER`."""

    @abstractmethod
    def count_characters(self, ids: Ids) -> int:
        """Characters of text that the ids stand for; an unknown character counts as well."""

    @abstractmethod
    def with_unknown(self, unknown: Literal["error", "replace"]) -> "Tokenizer":
        """The same vocabulary with another answer to characters that it lacks."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with the `kind` that `tokenizer_from_dict` knows."""


class CharacterTokenizer(Tokenizer):
    """One token per character: `SPECIAL_TOKENS`, then the characters by code point.

    Args:
        characters: of the vocabulary, in any order.
        unknown: stop at a character that is not among them, or read it as [UNK].
    """

    kind = "character"
    pad_id, bos_id, eos_id, unknown_id = range(len(SPECIAL_TOKENS))

    def __init__(
        self, characters: Sequence[str], unknown: Literal["error", "replace"] = "error"
    ) -> None:
        self.characters = "".join(sorted(set(characters)))
        self.unknown = unknown
        points = _code_points(self.characters)
        # One entry more than the highest code point: all higher ones are looked up there.
        highest = int(points.max(initial=0)) + 1
        ids_type = np.min_scalar_type(self.vocab_size - 1)
        self._ids = np.full(highest + 1, self.unknown_id, dtype=ids_type)
        self._ids[points] = np.arange(len(SPECIAL_TOKENS), self.vocab_size)
        self._pieces = ("", *SPECIAL_TOKENS[1:], *self.characters)

    @property
    def vocab_size(self) -> int:
        """Special tokens and characters."""
        return len(SPECIAL_TOKENS) + len(self.characters)

    def encode(self, text: str) -> Ids:
        """One id per character."""
        points = _code_points(text)
        ids: Ids = self._ids[np.minimum(points, len(self._ids) - 1)]
        if self.unknown == "error" and (ids == self.unknown_id).any():
            raise UsageError(self._lacking(text))
        return ids

    def decode(self, ids: Iterable[int] | Ids) -> str:
        """Text to read: [BOS], [EOS] and [UNK] by name."""
        return "".join(self._pieces[i] if i < self.vocab_size else LEFT_OVER for i in ids)

    def count_characters(self, ids: Ids) -> int:
        """All tokens but padding, beginnings and ends."""
        return int(np.count_nonzero(ids > self.eos_id))

    def with_unknown(self, unknown: Literal["error", "replace"]) -> "CharacterTokenizer":
        """The same characters."""
        return CharacterTokenizer(self.characters, unknown)

    def to_dict(self) -> dict[str, Any]:
        """The characters in the order of their ids."""
        return {"kind": self.kind, "characters": self.characters, "unknown": self.unknown}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "CharacterTokenizer":
        """The inverse of `to_dict`."""
        return cls(values["characters"], values["unknown"])

    def _lacking(self, text: str) -> str:
        lacking = sorted(set(text) - set(self.characters))
        named = ", ".join(f"{character!r} (U+{ord(character):04X})" for character in lacking[:5])
        more = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
        return (
            f"the tokenizer's {len(self.characters)} characters lack {named}{more}; "
            "`--data.unknown replace` reads them as [UNK]"
        )


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer that a run saved as JSON.

    Raises:
        UsageError: there is none, or none that this version can read.
    """
    try:
        return tokenizer_from_dict(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UsageError(f"cannot read the tokenizer {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is no tokenizer of this platform: {error!r}") from error


def tokenizer_from_dict(values: Mapping[str, Any]) -> Tokenizer:
    """The inverse of `Tokenizer.to_dict`, whatever its kind."""
    from platform_core.opaque import OpaqueTokenizer

    kinds: dict[str, type[CharacterTokenizer | OpaqueTokenizer]] = {
        CharacterTokenizer.kind: CharacterTokenizer,
        OpaqueTokenizer.kind: OpaqueTokenizer,
    }
    return kinds[values["kind"]].from_dict(values)


def _code_points(text: str) -> npt.NDArray[np.uint32]:
    # Text from a command line may hold lone surrogates; they are characters like any other here.
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
