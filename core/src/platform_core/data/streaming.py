"""Streaming: training sequences read as they are needed, at a position that the step determines.

    block b: the next 1000 documents -> rows (`packing`), in an order drawn from (seed, b)
    sequence n: row n - (rows of the blocks before) of the block that it falls into

Every block is packed by itself, so that its last row may be padded; after the last document the
first comes again. Checkpoints hold no tokens, only the number of the block, the number of its first
sequence, and the position where its documents begin. Every process reads the whole stream and takes
its own sequences, so their order does not depend on the number of processes. Used by `train`.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
import numpy.typing as npt
import torch

from platform_core.composition.options import DataOptions
from platform_core.data.corpus import Cursor, StreamableCorpus, open_corpus
from platform_core.data.packing import Packing, Rows
from platform_core.data.sequences import Sequences, packer
from platform_core.data.tokenizer import Tokenizer
from platform_core.draws import derive_seed
from platform_core.errors import UsageError
from platform_core.types import Batch

BLOCK = 1000
"""Number of documents that are packed and shuffled together."""


class Consecutive:
    """An order in which steps take the sequences of a stream one after another."""

    def rows(self, step: int, batch_size: int) -> list[int]:
        """The sequences of step number `step`, counted from 0."""
        return list(range(step * batch_size, (step + 1) * batch_size))

    def row(self, number: int) -> int:
        """The sequence that comes as number `number`: itself."""
        return number


class Stream(Sequences):
    """Base class of sequences that are read as they are needed, from a state on."""

    @abstractmethod
    def begin(self, *, seed: int) -> None:
        """Go to the first sequence, in the order of this seed."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Where the sequences that were fetched last are, as plain values."""

    @abstractmethod
    def restore(self, state: Mapping[str, Any]) -> None:
        """Go to a place that `state` gave."""


@final
class StreamedSplit(Stream):
    """Sequences of a stream by number; reading them in rising order is cheap.

    Args:
        cursor: cursor at the first document.
        tokenizer: tokenizer of the documents.
        packing: packing of each block.
        document_masks: whether tokens see only their own document.
    """

    def __init__(
        self, cursor: Cursor, tokenizer: Tokenizer, packing: Packing, *, document_masks: bool
    ) -> None:
        self._cursor, self._tokenizer, self._packing = cursor, tokenizer, packing
        self._document_masks = document_masks
        self._beginning = cursor.position()
        self.begin(seed=0)

    def begin(self, *, seed: int) -> None:
        """Go to the first sequence, in the order of this seed."""
        self._seed = seed
        self.restore({"block": 0, "first": 0, "documents": self._beginning})

    def state(self) -> dict[str, Any]:
        """The block of the sequence that was fetched last, as plain values."""
        return dict(self._state)

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go to the beginning of a block."""
        self._state = dict(state)
        self._rows: Rows | None = None

    def batch(self, indices: Sequence[int]) -> Batch:
        """Sequences by number, with their documents where the stream has document masks."""
        found = zip(*(self._row(index) for index in indices), strict=True)
        ids, counted, documents = (np.stack(column).astype(np.int64) for column in found)
        mask = np.arange(ids.shape[1]) < counted[:, None]
        batch = Batch(torch.from_numpy(ids), torch.from_numpy(mask))
        if not self._document_masks:
            return batch
        return batch._replace(documents=torch.from_numpy(documents))

    def _row(self, index: int) -> tuple[npt.NDArray[Any], int, npt.NDArray[Any]]:
        if index < self._state["first"]:
            self.begin(seed=self._seed)
        barren = 0
        while (place := index - self._state["first"]) >= len(self._block().ids):
            barren = 0 if len(self._block().ids) else barren + 1
            if barren > 2:
                raise UsageError(
                    "the text that is streamed fills no sequence of --data.length "
                    f"{self._packing.length}; give more text or a smaller length"
                )
            self._advance()
        rows = self._block()
        return rows.ids[place], int(rows.counted[place]), rows.documents[place]

    def _advance(self) -> None:
        self._state = {
            "block": self._state["block"] + 1,
            "first": self._state["first"] + len(self._block().ids),
            "documents": self._cursor.position(),
        }
        self._rows = None

    def _block(self) -> Rows:
        """The rows of the current block, shuffled; the cursor is then behind its documents."""
        if self._rows is None:
            self._cursor.restore(self._state["documents"])
            ids = list(self._tokenizer.encode_all(self._cursor.take(BLOCK)))
            parts = [self._packing.no_rows, *self._packing.rows(ids)]
            columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
            random = np.random.default_rng(derive_seed(self._seed, "stream", self._state["block"]))
            order = random.permutation(len(columns[0]))
            self._rows = Rows(*(column[order] for column in columns))
        return self._rows


def open_stream(options: DataOptions, tokenizer: Tokenizer) -> StreamedSplit:
    """The training text of the options as a stream.

    Raises:
        UsageError: the text cannot be read, or the bounds of its split are not known.
    """
    corpus = open_corpus(options)
    assert isinstance(corpus, StreamableCorpus), "other corpora are refused where they are opened"
    return StreamedSplit(
        corpus.cursor("train"),
        tokenizer.with_unknown(options.unknown),
        packer(corpus, tokenizer, options),
        document_masks=options.document_masks,
    )
