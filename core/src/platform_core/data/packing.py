"""Packing: documents of token ids as rows of equal length.

    Packed   BOS text EOS BOS text EOS ... cut into rows, the last one padded
    Chunked  text EOS text EOS ... of 1000 documents, cut; BOS and EOS around every piece
    Padded   BOS text EOS in a row of its own, cut or padded

Marks (BOS and EOS) are left out where `--data.marks` says so. Rows also say to which document each
token belongs, numbered within the row; padding is a document of its own. Used by `data` and
`streaming`.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, tee
from typing import Any, ClassVar, NamedTuple, Self, final

import numpy as np
import numpy.typing as npt

from platform_core.data.tokenizer import Ids, Tokenizer
from platform_core.data.tokenizer.base import Encoded
from platform_core.errors import UsageError

GROUP = 1000
"""Number of documents that the published packing cuts together."""

BLOCK_TOKENS = 2**22
"""Approximate number of tokens from which rows are made at once."""

Numbers = npt.NDArray[np.int32]


class Rows(NamedTuple):
    """Rows of token ids, with their padding and documents."""

    ids: npt.NDArray[np.unsignedinteger[Any]]
    """Token ids, `[rows, length]`."""
    counted: Numbers
    """`[rows]`: how many of a row's ids count; the others are padding."""
    documents: Numbers
    """`[rows, length]`: index of each token's document among the documents of its row."""


class Marks(NamedTuple):
    """Token ids that stand before and after each document: one id each, or none."""

    begin: Ids
    end: Ids


class Packing(ABC):
    """Base class of the ways to make rows.

    Args:
        tokenizer: tokenizer of the ids.
        length: tokens in a row.
        ends: whether documents are marked.

    `fills` says whether a split must have enough tokens to fill a row.
    """

    fills: ClassVar[bool] = True

    def __init__(self, tokenizer: Tokenizer, length: int, *, ends: bool) -> None:
        self.length, self.pad_id = length, tokenizer.pad_id
        self.ids_type: np.dtype[Any] = np.min_scalar_type(tokenizer.vocab_size - 1)
        self.once = tokenizer.bos_id == tokenizer.eos_id
        self.bos, self.eos = np.array([[tokenizer.bos_id], [tokenizer.eos_id]], self.ids_type)
        none = np.empty(0, self.ids_type)
        self.marks = Marks(self.bos, self.eos) if ends else Marks(none, none)

    @property
    def no_rows(self) -> Rows:
        """Zero rows, as from no documents."""
        return self.padded(self.marks.begin[:0], np.empty(0, dtype=np.int32))

    @abstractmethod
    def rows(self, documents: Iterable[Ids]) -> Iterator[Rows]:
        """Pack documents into rows, and yield some rows at a time."""

    def counted_rows(
        self, documents: Iterable[Encoded]
    ) -> Iterator[tuple[Rows, npt.NDArray[np.int64]]]:
        """Pack documents, and count the characters of their text in each row."""
        first, second = tee(documents)
        packed = self.rows(document.ids for document in first)
        counts = self._of_counts().rows(document.characters for document in second)
        for rows, characters in zip(packed, counts, strict=True):
            yield rows, characters.ids.sum(1, dtype=np.int64)

    def _of_counts(self) -> Self:
        """The same packing of a number for each token, which is 0 for marks and padding."""
        twin = copy.copy(self)
        twin.ids_type, twin.pad_id = np.dtype(np.uint32), 0
        twin.bos = twin.eos = np.zeros(1, np.uint32)
        twin.marks = Marks(*(np.zeros(len(mark), np.uint32) for mark in self.marks))
        return twin

    def padded(self, ids: Ids, documents: Numbers) -> Rows:
        """Cut one stretch of ids into rows, and fill up the last row with padding."""
        counted = np.full(-(-len(ids) // self.length), self.length, dtype=np.int32)
        padding = len(counted) * self.length - len(ids)
        counted[-1:] -= padding
        # Padding counts as a document of its own, numbered after all others.
        last = documents[-1] + 1 if len(documents) else 0
        return Rows(
            np.pad(ids, (0, padding), constant_values=self.pad_id).reshape(-1, self.length),
            counted,
            within_rows(np.pad(documents, (0, padding), constant_values=last), self.length),
        )

    def joined(self, documents: Sequence[Ids], first: int = 0) -> tuple[Ids, Numbers]:
        """Concatenate documents; also return the number of each id's document, from `first` on."""
        empty = np.empty(0, self.ids_type)
        lengths = [len(ids) for ids in documents]
        numbers = np.arange(first, first + len(documents), dtype=np.int32)
        return np.concatenate([empty, *documents], dtype=self.ids_type), np.repeat(numbers, lengths)


@final
class Packed(Packing):
    """Packing of all documents in one stretch.

    If BOS and EOS are one token, it stands once between documents.
    """

    def rows(self, documents: Iterable[Ids]) -> Iterator[Rows]:
        """Yield full rows, and at the end a padded row."""
        waiting: list[Ids] = []
        size = number = 0
        for place, document in enumerate(documents):
            begin = self.marks.begin[:0] if place and self.once else self.marks.begin
            waiting.append(np.concatenate([begin, document, self.marks.end], dtype=self.ids_type))
            size += len(waiting[-1])
            if size >= max(BLOCK_TOKENS, self.length):
                ids, numbers = self.joined(waiting, number)
                full = len(ids) // self.length * self.length
                yield self.padded(ids[:full], numbers[:full])
                # The rest may hold several documents; keep them apart.
                begins = np.flatnonzero(np.diff(numbers[full:])) + 1
                number += len(waiting)
                waiting = [part for part in np.split(ids[full:], begins) if len(part)]
                number -= len(waiting)
                size = len(ids) - full
        if size:
            yield self.padded(*self.joined(waiting, number))


@final
class Chunked(Packing):
    """Packing as published: pieces of length - 2 tokens between a beginning and an end.

    The pieces are cut from `GROUP` documents at a time, with an end after each document where
    documents are marked; what is left of a group is left out.

    Raises:
        UsageError: rows have no room for text.

    Source: the wrap of MDLM, arXiv:2406.07524.
    """

    def __init__(self, tokenizer: Tokenizer, length: int, *, ends: bool) -> None:
        super().__init__(tokenizer, length, ends=ends)
        if length < 3:
            raise UsageError(
                f"--data.length is {length}; with a beginning and an end around every sequence it "
                "must be at least 3"
            )

    def rows(self, documents: Iterable[Ids]) -> Iterator[Rows]:
        """Yield the pieces of one group of documents after another."""
        remaining = iter(documents)
        while group := list(islice(remaining, GROUP)):
            ended = [np.concatenate([ids, self.marks.end], dtype=self.ids_type) for ids in group]
            ids, numbers = self.joined(ended)
            text = self.length - 2
            number = len(ids) // text
            pieces = ids[: number * text].reshape(number, text)
            begin, end = (np.repeat(mark[None], number, axis=0) for mark in (self.bos, self.eos))
            of = numbers[: number * text].reshape(number, text)
            around = np.concatenate([of[:, :1], of, of[:, -1:]], axis=1)
            yield Rows(
                np.concatenate([begin, pieces, end], axis=1),
                np.full(number, self.length, dtype=np.int32),
                within_rows(around, self.length),
            )


@final
class Padded(Packing):
    """Packing of each document in a row of its own; the text is cut to fit between its marks."""

    fills = False

    def rows(self, documents: Iterable[Ids]) -> Iterator[Rows]:
        """Yield one row for each document that is not empty."""
        room = max(0, self.length - len(self.marks.begin) - len(self.marks.end))
        marked = (
            np.concatenate([self.marks.begin, ids[:room], self.marks.end])[: self.length]
            for ids in documents
        )
        filled = (ids for ids in marked if len(ids))
        while group := list(islice(filled, GROUP)):
            counted = np.array([len(ids) for ids in group], dtype=np.int32)
            padding = np.arange(self.length) >= counted[:, None]
            rows = np.full(padding.shape, self.pad_id, dtype=self.ids_type)
            rows[~padding] = np.concatenate(group)
            yield Rows(rows, counted, padding.astype(np.int32))


def within_rows(documents: Numbers, length: int) -> Numbers:
    """Number the documents of rows of `length` tokens anew in each row."""
    rows = documents.reshape(-1, length)
    changes = np.diff(rows, axis=1, prepend=rows[:, :1]) != 0
    return np.cumsum(changes, axis=1, dtype=np.int32)


def choose(tokenizer: Tokenizer, length: int, *, packing: str, marks: str) -> Packing:
    """The packing that `--data.packing` and `--data.marks` name."""
    kind, ends = _WAYS[packing][marks]
    return kind(tokenizer, length, ends=ends)


_WAYS: Mapping[str, Mapping[str, tuple[type[Packing], bool]]] = {
    "packed": {
        "documents": (Packed, True),
        "none": (Packed, False),
        "published": (Chunked, True),
        "chunks": (Chunked, False),
    },
    # Each document is a row, so marks around every row are marks around each document.
    "padded": {
        "documents": (Padded, True),
        "none": (Padded, False),
        "published": (Padded, True),
        "chunks": (Padded, True),
    },
}
