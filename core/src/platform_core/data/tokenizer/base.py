"""What data and generation need of any tokenizer: text as token ids and back.

Ids are 0 .. vocab_size - 1 and hold padding, the beginning and the end of a document besides the
text. The mask of a masking process is not among them: the process puts it after the vocabulary.
No torch.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Literal, Self, final

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.unsignedinteger[Any]]
"""Token ids in the smallest type that holds the vocabulary; one dimension."""

Unknown = Literal["error", "replace"]

LEFT_OVER = "▒"
"""Shown for ids outside the vocabulary: masks that sampling left in place."""


class Tokenizer(ABC):
    """A vocabulary and how text is cut into it; immutable.

    `kind` is the name under which `platform_tokenizers` registers the class.
    """

    kind: ClassVar[str]

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Number of token ids: every part of a model has it from here."""

    @property
    @abstractmethod
    def pad_id(self) -> int:
        """Fills up the last sequence; never a target, never the mask; may be `eos_id`."""

    @property
    @abstractmethod
    def bos_id(self) -> int:
        """Begins every document; may be `eos_id`, which then stands once between documents."""

    @property
    @abstractmethod
    def eos_id(self) -> int:
        """Ends every document."""

    @property
    @abstractmethod
    def special(self) -> Mapping[str, int]:
        """Tokens that `decode` spells out by name and that `encode` never makes of a text."""

    @property
    @abstractmethod
    def unknown_id(self) -> int | None:
        """Stands for what the vocabulary lacks; None where nothing is lacking."""

    @abstractmethod
    def encode_all(self, texts: Iterable[str]) -> Iterator[Ids]:
        """Ids of each text alone, in order; many at once are quicker than one by one.

        Raises:
            UsageError: the vocabulary lacks a character, and unknown ones are errors.
        """

    @final
    def encode(self, text: str) -> Ids:
        """Ids of the text alone; errors as `encode_all`."""
        return next(iter(self.encode_all([text])))

    @abstractmethod
    def decode(self, ids: Iterable[int] | Ids) -> str:
        """Text to read: without padding, ids outside the vocabulary as `LEFT_OVER`."""

    @abstractmethod
    def count_characters(self, ids: Ids) -> int:
        """Characters of text that the ids stand for; an unknown character counts as well."""

    @abstractmethod
    def with_unknown(self, unknown: Unknown) -> "Tokenizer":
        """The same vocabulary with another answer to characters that it lacks.

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
    """A kind whose vocabulary is made of a corpus: `--data.tokenizer KIND` builds and keeps it."""

    @classmethod
    @abstractmethod
    def of_texts(cls, texts: Iterable[str]) -> Self:
        """The tokenizer of all documents of a corpus, those of every split."""
