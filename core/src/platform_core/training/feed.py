"""What each update of a training is fed: the micro-batches of a process, fetched ahead.

    step -> Order.rows -> split.batch -> labels left out -> pinned memory     (in a thread)
    Feed.take(step)                                                           (in the trainer)

A thread fetches ahead where the trainer would wait otherwise: on a GPU, and on a CPU of streams,
whose text has to be tokenised, if torch leaves a core free for it. On a CPU whose cores all compute
a thread gains nothing, and packed sequences take no time (about 1e8 tokens/s). What is fetched for
a step is the same either way. The state that belongs to a step is that of a stream after the step's
own sequences, not after those that were fetched ahead.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from platform_core.composition.options import TrainOptions
from platform_core.data.mix import Mix, MixedOrder
from platform_core.data.sequences import Data, LabelledSplit, Order, Sequences
from platform_core.data.streaming import Consecutive, Stream
from platform_core.draws import Draws
from platform_core.errors import UsageError
from platform_core.guidance import without_some
from platform_core.runtime.accelerator import available_cores
from platform_core.runtime.ahead import Ahead
from platform_core.types import Batch

SEQUENCES = 1024
"""Sequences of all processes that wait at most, unless two steps have more: about a block of a
stream, so that the next one is tokenised while they are used."""

MOST_STEPS = 64


class Place(NamedTuple):
    """Which process this is, of how many, and on what device it computes."""

    process: int
    processes: int
    device: torch.device


class Fetched(NamedTuple):
    """What one step of one process needs."""

    batches: Mapping[int, Batch]
    """Micro-batches by their places in the global batch."""
    stream: Mapping[str, Any] | None
    """State of the stream after these; None without a stream."""


class Feed:
    """The micro-batches of one process by step: a function of the seed and the step.

    Args:
        data: the source of sequences.
        options: the options of the optimisation.
        place: the process and its device.
        seed: seed of the order and of the labels that are left out.
        stream: training sequences in place of those of the data.
        mix: training sequences of several corpora, in place of both.

    Raises:
        UsageError: the batch does not divide among processes and micro-batches.
    """

    def __init__(
        self,
        data: Data,
        options: TrainOptions,
        place: Place,
        *,
        seed: int,
        stream: Stream | None = None,
        mix: Mix | None = None,
    ) -> None:
        self.options, self.place, self.seed = options, place, seed
        self.micro_batch = _micro_batch(options, place.processes)
        self.split: Sequences
        self.order: Order | Consecutive | MixedOrder
        if mix is not None:
            self.split, self.order = mix.sequences, mix.order(seed)
        elif stream is not None:
            self.split, self.order = stream, Consecutive()
        else:
            split = data.split("train")
            self.split, self.order = split, Order(len(split), seed)
        self.stream = self.split if isinstance(self.split, Stream) else None
        if self.stream is not None:
            self.stream.begin(seed=seed)
        self._state = self._now()
        depth = max(2, min(MOST_STEPS, SEQUENCES // options.batch_size))
        self.ahead = Ahead(self._in_thread, depth) if self.worth_a_thread else None

    @property
    def worth_a_thread(self) -> bool:
        """Whether batches are fetched ahead."""
        if self.place.device.type == "cuda":
            return True
        return self.stream is not None and torch.get_num_threads() < available_cores()

    @property
    def state(self) -> Mapping[str, Any] | None:
        """State of the stream after the batches that were taken last; None without a stream."""
        return self._state

    def take(self, step: int) -> Mapping[int, Batch]:
        """The micro-batches of a step, by their places in the global batch.

        Raises:
            UsageError: text cannot be read, also where a thread read it.
        """
        fetched = self.ahead.take(step) if self.ahead else self.fetch(step)
        self._state = fetched.stream
        return fetched.batches

    def fetch(self, step: int) -> Fetched:
        """What a step needs, fetched now."""
        rows = self.order.rows(step, self.options.batch_size)
        batches = {}
        for number in range(self.options.accumulate):
            first = (number * self.place.processes + self.place.process) * self.micro_batch
            batch = self.split.batch(rows[first : first + self.micro_batch])
            batches[first] = self._without_some_labels(batch, step, first)
        if self.place.device.type == "cuda":
            batches = {first: batch.pinned() for first, batch in batches.items()}
        return Fetched(batches, self._now())

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes to a state of the stream that belongs to a step."""
        assert self.stream is not None, "other sequences have no state"
        self.close(patience=None)
        self.stream.restore(state)
        self._state = self._now()

    def close(self, patience: float | None = None) -> None:
        """Ends the thread; `take` begins another one.

        Args:
            patience: seconds to wait for a thread that is stuck; None for ever.
        """
        if self.ahead is not None:
            self.ahead.close(patience)

    def _in_thread(self, step: int) -> Fetched:
        if self.place.device.type == "cuda":
            # Memory is pinned for the current device of a thread, by as many threads as that has.
            torch.cuda.set_device(self.place.device)
            torch.set_num_threads(1)
        return self.fetch(step)

    def _now(self) -> Mapping[str, Any] | None:
        return None if self.stream is None else self.stream.state()

    def _without_some_labels(self, batch: Batch, step: int, first: int) -> Batch:
        if batch.labels is None:
            return batch
        assert isinstance(self.split, LabelledSplit), "labels are of a labelled split"
        share, none = self.options.label_dropout, len(self.split.names)
        draws = Draws.derive(
            self.seed, "labels", step=step, first=first, total=self.options.batch_size
        )
        left = draws.each(
            lambda labels, generator: without_some(labels, none, share, generator), batch.labels
        )
        return batch._replace(labels=left)


def _micro_batch(options: TrainOptions, processes: int) -> int:
    parts = processes * options.accumulate
    if options.batch_size % parts:
        raise UsageError(
            f"train.batch_size {options.batch_size} does not divide into {processes} process(es) x "
            f"train.accumulate {options.accumulate}; make it a multiple of {parts}"
        )
    return options.batch_size // parts
