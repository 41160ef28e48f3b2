"""Mixes: training sequences of several corpora, each as often as its weight says (`--data.mix`).

    block b: a deck of `DECK` places, quota_c of them of corpus c, shuffled by (seed, "mix", b)
    place p of block b: sequence number  b * quota_c + (places of c before p in the deck)  of c

A sequence number becomes a row by the corpus's own order: epochs of a packed corpus, the blocks of
a stream. So what a place of the training holds is a function of the seed and of the place alone,
for any batch size and any number of processes, and a resumed training needs to restore no order.
The tokenizer is that of the first corpus, `--data.corpus`. Used by training and by the n-grams.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
import numpy.typing as npt
import torch

from platform_core.composition.corpora import DECK, Share, shares
from platform_core.composition.options import DataOptions
from platform_core.data.corpus import open_corpus
from platform_core.data.sequences import Data, Order, Sequences, TokenSplit, load_data
from platform_core.data.streaming import Consecutive, Stream, open_stream
from platform_core.data.tokenizer import Ids
from platform_core.draws import derive_seed
from platform_core.record.files import digest_of
from platform_core.types import Batch

Numbers = npt.NDArray[np.int64]


class Deck:
    """Which corpus each place of the training is for, and which of its sequences.

    Args:
        quotas: places of each corpus in a deck of `DECK` places.
        seed: seed of the order of the places.
    """

    def __init__(self, quotas: Sequence[int], seed: int) -> None:
        assert sum(quotas) == DECK, "a deck is full"
        self.quotas, self.seed = tuple(quotas), seed
        self._block, self._dealt = -1, (np.empty(0, np.int64), np.empty(0, np.int64))

    def at(self, place: int) -> tuple[int, int]:
        """The corpus of a place, and the number of the sequence within the corpus."""
        block, offset = divmod(place, DECK)
        corpora, before = self._of(block)
        corpus = int(corpora[offset])
        return corpus, block * self.quotas[corpus] + int(before[offset])

    def _of(self, block: int) -> tuple[Numbers, Numbers]:
        """The corpus of each place of a block, and how many places of that corpus come before."""
        if block != self._block:
            generator = np.random.default_rng(derive_seed(self.seed, "mix", block))
            ordered = np.repeat(np.arange(len(self.quotas)), self.quotas)
            corpora = generator.permutation(ordered)
            before = np.empty_like(corpora)
            for corpus, quota in enumerate(self.quotas):
                before[corpora == corpus] = np.arange(quota)
            self._block, self._dealt = block, (corpora, before)
        return self._dealt


class MixedOrder:
    """Which sequences of a `Mixed` each optimizer step takes: a pure function of (seed, step)."""

    def __init__(self, deck: Deck, orders: Sequence[Order | Consecutive]) -> None:
        self._deck, self._orders = deck, tuple(orders)

    def rows(self, step: int, batch_size: int) -> list[int]:
        """The sequences of step number `step`, counted from 0, as `Mixed` numbers them."""
        places = range(step * batch_size, (step + 1) * batch_size)
        found = map(self._deck.at, places)
        return [self._orders[c].row(n) * len(self._orders) + c for c, n in found]


class Mixed(Sequences):
    """Sequences of several corpora: row r of corpus c of n has the number r * n + c."""

    def __init__(self, sources: Sequence[Sequences]) -> None:
        self.sources = tuple(sources)

    def batch(self, indices: Sequence[int]) -> Batch:
        """Sequences by number, fetched corpus by corpus and put into the order of the numbers."""
        rows, corpora = np.divmod(np.asarray(indices, dtype=np.int64), len(self.sources))
        places, batches = [], []
        for corpus in np.unique(corpora).tolist():
            places.append(np.flatnonzero(corpora == corpus))
            batches.append(self.sources[corpus].batch(rows[places[-1]].tolist()))
        order = torch.from_numpy(np.argsort(np.concatenate(places)))
        columns = zip(*batches, strict=True)
        return Batch._make(None if c[0] is None else torch.cat(c)[order] for c in columns)


class MixedStreams(Mixed, Stream):
    """Sequences of several streams; its state is that of each of them."""

    def __init__(self, streams: Sequence[Stream]) -> None:
        super().__init__(streams)
        self._streams = tuple(streams)

    def begin(self, *, seed: int) -> None:
        """Go to the first sequence of every stream, in the orders of this seed."""
        for stream in self._streams:
            stream.begin(seed=seed)

    def state(self) -> dict[str, Any]:
        """Where each stream is, as plain values."""
        return {"streams": [stream.state() for stream in self._streams]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go to where each stream was."""
        for stream, own in zip(self._streams, state["streams"], strict=True):
            stream.restore(own)


class Mix(ABC):
    """The corpora of a training, their shares and their sequences.

    Args:
        shares: the corpora, `data.corpus` first.
        fingerprints: of the tokens of each corpus.
    """

    def __init__(self, shares: Sequence[Share], fingerprints: Sequence[str]) -> None:
        self.shares, self.fingerprints = tuple(shares), tuple(fingerprints)

    @property
    def fingerprint(self) -> str:
        """A digest that changes whenever the tokens of a corpus change, or its share."""
        quotas = [share.quota for share in self.shares]
        return digest_of([DECK, list(zip(self.fingerprints, quotas, strict=True))])

    @property
    @abstractmethod
    def sequences(self) -> Mixed:
        """The sequences of all corpora."""

    @abstractmethod
    def order(self, seed: int) -> MixedOrder:
        """The order in which training takes them."""

    @abstractmethod
    def said(self, number: int) -> str:
        """How many sequences a corpus has, in words."""

    def facts(self) -> dict[str, Any]:
        """Name of each corpus -> its part of the training sequences, and its fingerprint."""
        return {
            str(share.word): {"share": round(share.part, 6), "fingerprint": fingerprint}
            for share, fingerprint in zip(self.shares, self.fingerprints, strict=True)
        }

    def _deck(self, seed: int) -> Deck:
        return Deck([share.quota for share in self.shares], seed)


@final
class PackedMix(Mix):
    """A mix of packed corpora; each has epochs of its own, in orders of its own."""

    def __init__(
        self, shares: Sequence[Share], fingerprints: Sequence[str], splits: Sequence[TokenSplit]
    ) -> None:
        super().__init__(shares, fingerprints)
        self.splits = tuple(splits)

    @property
    def sequences(self) -> Mixed:
        return Mixed(self.splits)

    def order(self, seed: int) -> MixedOrder:
        seeds = [seed, *(derive_seed(seed, "corpus", n) for n in range(1, len(self.splits)))]
        orders = [Order(len(split), own) for split, own in zip(self.splits, seeds, strict=True)]
        return MixedOrder(self._deck(seed), orders)

    def said(self, number: int) -> str:
        return f"{len(self.splits[number]):,} sequences"

    def tokens(self, sequences: int) -> Ids:
        """The tokens of about so many sequences: of each corpus its share, evenly spread.

        A corpus that has fewer than its share gives all that it has.
        """
        sequences = min(sequences, sum(map(len, self.splits)))
        wanted = [max(1, round(share.part * sequences)) for share in self.shares]
        found = [split.spread(n).tokens() for split, n in zip(self.splits, wanted, strict=True)]
        return np.concatenate(found)


@final
class StreamedMix(Mix):
    """A mix of streams."""

    def __init__(
        self, shares: Sequence[Share], fingerprints: Sequence[str], streams: Sequence[Stream]
    ) -> None:
        super().__init__(shares, fingerprints)
        self._sequences = MixedStreams(streams)

    @property
    def sequences(self) -> MixedStreams:
        return self._sequences

    def order(self, seed: int) -> MixedOrder:
        return MixedOrder(self._deck(seed), [Consecutive() for _ in self.shares])

    def said(self, number: int) -> str:
        return "a stream"


def require_corpora(options: DataOptions) -> None:
    """Open the further corpora of a mix, so that one that is not there is refused at once.

    Raises:
        UsageError: a corpus does not exist, or its options do not suit it.
    """
    for share in shares(options)[1:]:
        open_corpus(share.options)


def load_mix(options: DataOptions, data: Data) -> PackedMix | StreamedMix | None:
    """The mix that the options ask for, in tokens of the first corpus; None without one.

    Args:
        options: options of the data.
        data: the first corpus, with its training split unless training text is streamed.

    Raises:
        UsageError: as of `load_data` and `open_stream`, for one of the corpora.
    """
    found = shares(options)
    if not found:
        return None
    needed = () if options.streaming else ("train",)
    others = [load_data(share.options, data.tokenizer, (), needed) for share in found[1:]]
    fingerprints = [part.fingerprint for part in (data, *others)]
    if options.streaming:
        streams = [open_stream(share.options, data.tokenizer) for share in found]
        return StreamedMix(found, fingerprints, streams)
    return PackedMix(found, fingerprints, [part.split("train") for part in (data, *others)])
