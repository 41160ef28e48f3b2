"""Base classes of tokenizers: text as token ids and back, as data and generation need it.

Ids are 0 .. vocab_size - 1 and include padding, beginning and end of a document. The mask of a
masking process is not among them: the process puts the mask after the vocabulary. Imports no torch.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from itertools import tee
from typing import Any, ClassVar, Literal, NamedTuple, Self, final

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.unsignedinteger[Any]]
"""Token ids in the smallest type that holds the vocabulary; one dimension."""

Counts = npt.NDArray[np.uint32]
"""A number of characters for each token."""


class Encoded(NamedTuple):
    """A text in tokens, and how many of its characters each token adds to those before it."""

    ids: Ids
    characters: Counts


def adding_up(counts: npt.ArrayLike, total: int) -> Counts:
    """Characters of the tokens of a text that add up to the `total` of the text.

    What the tokens count too much is taken from the last ones, and what they leave out, such as
    blanks that a tokenizer drops, is given to the last one.
    """
    reached = np.minimum(np.cumsum(counts, dtype=np.int64), total)
    reached[-1:] = total
    return np.diff(reached, prepend=0).astype(np.uint32)


Unknown = Literal["error", "replace"]

LEFT_OVER = "▒"
"""Shown for ids outside the vocabulary: masks that sampling left in place."""


class Tokenizer(ABC):
    """A vocabulary and a way to cut text into its tokens; immutable.

    `kind` is the name under which `platform_tokenizers` registers the class.
    """

    kind: ClassVar[str]

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Number of token ids, from which every part of a model takes its size."""

    @property
    @abstractmethod
    def pad_id(self) -> int:
        """Id that fills up the last sequence; never a target, never the mask; may be `eos_id`."""

    @property
    @abstractmethod
    def bos_id(self) -> int:
        """Id that begins every document; if it is `eos_id`, it stands once between documents."""

    @property
    @abstractmethod
    def eos_id(self) -> int:
        """Id that ends every document."""

    @property
    @abstractmethod
    def special(self) -> Mapping[str, int]:
        """Tokens that `decode` spells out by name and that `encode` never makes of a text."""

    @property
    @abstractmethod
    def unknown_id(self) -> int | None:
        """Id of what the vocabulary lacks; None if the vocabulary lacks nothing."""

    @abstractmethod
    def encode_all(self, texts: Iterable[str]) -> Iterator[Ids]:
        """Ids of each text alone, in order; encoding many texts at once is quicker.

        Raises:
            UsageError: the vocabulary lacks a character, and unknown ones are errors.
        """

    def encode_counted(self, texts: Iterable[str]) -> Iterator[Encoded]:
        """As `encode_all`, with the characters of the text that each token stands for.

        They add up to the length of the text, however it is cut. By default a token stands for the
        characters that `count_characters` gives it anywhere; a tokenizer whose tokens depend on
        what is around them says it better.
        """
        read, encoded = tee(texts)
        for text, ids in zip(read, self.encode_all(encoded), strict=True):
            kinds, places = np.unique(ids, return_inverse=True)
            counts = np.array([self.count_characters(kinds[i : i + 1]) for i in range(len(kinds))])
            yield Encoded(ids, adding_up(counts[places] if len(kinds) else [], len(text)))

    @final
    def encode(self, text: str) -> Ids:
        """Ids of one text; raises the errors of `encode_all`."""
        return next(iter(self.encode_all([text])))

    @abstractmethod
    def decode(self, ids: Iterable[int] | Ids) -> str:
        """Readable text of ids, without padding; ids outside the vocabulary are `LEFT_OVER`."""

    @abstractmethod
    def count_characters(self, ids: Ids) -> int:
        """Characters of text that ids stand for whose text is not known, as they are generated.

        An unknown character counts as well. Of a text that is known, `encode_counted` counts the
        text's own characters.
        """

    @abstractmethod
    def with_unknown(self, unknown: Unknown) -> "Tokenizer":
        """The same vocabulary with another treatment of characters that it lacks.

        Raises:
            UsageError: characters that it lacks cannot be replaced.
        """

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with the `kind` that `tokenizer_from_dict` knows."""

    @classmethod
    @abstractmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Raises:
            KeyError, TypeError, ValueError: the values are not those of `to_dict`.
        """


class BuiltTokenizer(Tokenizer):
    """A tokenizer with a vocabulary built from a corpus, as `--data.tokenizer KIND` does once."""

    @classmethod
    @abstractmethod
    def of_texts(cls, texts: Iterable[str]) -> Self:
        """The tokenizer of all documents of a corpus, in every split."""
