"""Random draws of one training step, from generators that are derived anew each time.

What is drawn of a sequence is a function of (seed, purpose, step, place of the sequence in the
global batch), so a resumed run draws exactly what an uninterrupted run would have drawn, no
generator state needs saving, and it makes no difference into how many micro-batches, or among how
many processes, the global batch is divided.
"""

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from platform_core.types import Noise

END_MARGIN = 2.0**-40
"""Times keep this distance from 0 and 1, where rates are infinite."""

BITS = 40
"""Binary digits of a place in the global batch."""

Drawn = TypeVar("Drawn", bound=Tensor | tuple[Any, ...])


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from any number of parts; different parts give unrelated seeds."""
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def derive_generator(*parts: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator on `device`, seeded by `derive_seed`."""
    return torch.Generator(device=device).manual_seed(derive_seed(*parts))


@dataclass
class Draws:
    """The random draws of one batch, each sequence's own, and the batch's place in the global one.

    The draws of a sequence depend on its place in the global batch and on how many draws of this
    batch came before them (`calls`), not on the other sequences of the batch. So an objective whose
    draws all come from `times` and `each` has the same noise however the global batch is divided.

    Args:
        seed: of all draws of the global batch at this step.
        step: number of optimizer updates so far; objectives that change over training read it.
        first: index of the batch's first sequence in the global batch (all ranks, all accumulated
            micro-batches).
        total: number of sequences in the global batch.
        shift: a number that is the same on every rank, drawn anew at each step.
        device: of the batch, and of everything that is drawn.
        rounds: how often the global batch holds the same list of sequences, one list after the
            other; each sequence then has a time in each of so many equal parts of [0, 1].
    """

    seed: int
    step: int
    first: int
    total: int
    shift: int
    device: torch.device
    rounds: int = 1
    calls: int = field(default=0, init=False)

    @classmethod
    def derive(
        cls,
        *parts: int | str,
        step: int,
        first: int,
        total: int,
        device: torch.device | str = "cpu",
        rounds: int = 1,
    ) -> "Draws":
        """The draws of the batch that starts at sequence `first` of step `step`."""
        shift = derive_seed(*parts, "shift", step) % total
        seed = derive_seed(*parts, "draws", step)
        return cls(seed, step, first, total, shift, torch.device(device), rounds)

    def times(self, batch: int, t_min: float = 0.0, parts: int = 1) -> Noise:
        """Stratified times in [t_min, 1], `[batch, parts]` float64: one in each of `total` x
        `parts` equal intervals.

        `dealt` deals the intervals, so that consecutive sequences, and with them every micro-batch
        and every rank, cover all times evenly, and so do the parts of a sequence. A random shift
        that all ranks share rotates the intervals, so that the time of every sequence is uniform
        and estimates over a fixed list of texts are unbiased.

        Args:
            batch: number of sequences of this batch.
            t_min: the earliest time.
            parts: number of times of each sequence.
        """
        places = torch.arange(self.first * parts, (self.first + batch) * parts)
        number, total = self.total // self.rounds * parts, self.total * parts
        within = dealt(places % number, number)
        interval = (places - places % number + within + self._shift(parts)) % total
        seeds = self._seeds(batch)
        if parts > 1:
            seeds = [derive_seed(seed, part) for seed in seeds for part in range(parts)]
        inside = torch.tensor(seeds, dtype=torch.float64) * 2.0**-63
        t = ((interval + inside) / total).clamp(END_MARGIN, 1 - END_MARGIN)
        return (t_min + (1 - t_min) * t).view(batch, parts).to(self.device, non_blocking=True)

    def _shift(self, parts: int) -> int:
        """Intervals by which all times are shifted, the same on every rank."""
        return self.shift if parts == 1 else self.shift * parts + derive_seed(self.seed) % parts

    def each(self, draw: Callable[..., Drawn], *columns: Tensor) -> Drawn:
        """What `draw` makes of each sequence with a generator of its own, for the whole batch.

        `draws.each(process.corrupt, x0, alpha)` is the noisy batch.

        Args:
            draw: called with the rows `[1, ...]` of one sequence, one of each column, and a
                `torch.Generator` on the batch's device; it returns a tensor `[1, ...]`, or a tuple
                of such, of the same shape for every sequence.
            columns: tensors `[batch, ...]` of at least one sequence.
        """
        generator = torch.Generator(device=self.device)
        batch = len(columns[0])
        found: Drawn | None = None
        for number, seed in enumerate(self._seeds(batch)):
            row = (column[number : number + 1] for column in columns)
            drawn = draw(*row, generator.manual_seed(seed))
            found = _for_all(drawn, batch) if found is None else found
            _put(found, drawn, number)
        assert found is not None, "a batch has sequences"
        return found

    def _seeds(self, batch: int) -> list[int]:
        """Of this call, for each sequence."""
        self.calls += 1
        places = range(self.first, self.first + batch)
        return [derive_seed(self.seed, self.calls, place) for place in places]


def dealt(places: Tensor, total: int) -> Tensor:
    """A permutation of 0 to total - 1 at the given places, which spreads every run of places.

    With total = odd 2^k, a micro-batch of total / 2^j sequences has exactly one interval in each of
    as many equal parts of [0, 1]. Other runs are spread as van der Corput's sequence is, which
    reverses the binary digits of the place.
    """
    power = total & -total
    odd = total // power
    low, high = places % odd, places // odd
    coarse: Tensor = _odd_order(odd)[low] * power
    fine: Tensor = _reversed(high) // (2**BITS // power)
    return coarse + fine


@functools.lru_cache(4)
def _odd_order(odd: int) -> Tensor:
    """The ranks of van der Corput's first numbers."""
    return _reversed(torch.arange(odd)).argsort().argsort()


def _reversed(numbers: Tensor) -> Tensor:
    """Numbers below 2^BITS with their binary digits reversed."""
    found = torch.zeros_like(numbers)
    for bit in range(BITS):
        found |= ((numbers >> bit) & 1) << (BITS - 1 - bit)
    return found


def _for_all(drawn: Drawn, batch: int) -> Drawn:
    """Room for what is drawn of a whole batch; put together at the end, it would be there twice."""
    if isinstance(drawn, Tensor):
        room: Any = drawn.new_empty((batch, *drawn.shape[1:]))
        return room  # type: ignore[no-any-return]
    parts = [_for_all(part, batch) for part in drawn]
    return type(drawn)(parts) if type(drawn) is tuple else type(drawn)(*parts)


def _put(found: Drawn, drawn: Drawn, number: int) -> None:
    """What was drawn of one sequence, in its place."""
    if isinstance(found, Tensor):
        found[number : number + 1] = drawn  # type: ignore[assignment]
        return
    for part, one in zip(found, drawn, strict=True):
        _put(part, one, number)
