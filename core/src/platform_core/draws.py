"""Random draws of one training step, from generators that are derived anew each time.

A generator is a function of (seed, purpose, step, first sequence of the batch), so a resumed run
draws exactly what an uninterrupted run would have drawn, and no generator state needs saving.
"""

import hashlib
from dataclasses import dataclass

import torch

from platform_core.types import Noise

END_MARGIN = 2.0**-40
"""Times keep this distance from 0 and 1, where rates are infinite."""


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from any number of parts; different parts give unrelated seeds."""
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def derive_generator(*parts: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator on `device`, seeded by `derive_seed`."""
    return torch.Generator(device=device).manual_seed(derive_seed(*parts))


@dataclass(frozen=True)
class Draws:
    """The random draws of one batch, and its place in the global batch.

    Args:
        generator: generator of this batch alone, on the batch's device.
        step: number of optimizer updates so far; objectives that change over training read it.
        first: index of the batch's first sequence in the global batch (all ranks, all accumulated
            micro-batches).
        total: number of sequences in the global batch.
        shift: a number that is the same on every rank, drawn anew at each step.
    """

    generator: torch.Generator
    step: int
    first: int
    total: int
    shift: int

    @classmethod
    def derive(
        cls,
        *parts: int | str,
        step: int,
        first: int,
        total: int,
        device: torch.device | str = "cpu",
    ) -> "Draws":
        """The draws of the batch that starts at sequence `first` of step `step`."""
        shift = derive_seed(*parts, "shift", step) % total
        generator = derive_generator(*parts, "draws", step, first, device=device)
        return cls(generator, step, first, total, shift)

    def times(self, batch: int, t_min: float = 0.0) -> Noise:
        """Stratified times in [t_min, 1], `[batch, 1]` float64: one in each of `total` equal
        intervals.

        A random shift that all ranks share rotates the order in which sequences get intervals, so
        that the time of every sequence is uniform and estimates over a fixed list of texts are
        unbiased.
        """
        device = self.generator.device
        interval = (self.first + self.shift + torch.arange(batch, device=device)) % self.total
        within = torch.rand(batch, generator=self.generator, dtype=torch.float64, device=device)
        t = ((interval + within) / self.total).clamp(END_MARGIN, 1 - END_MARGIN)
        return (t_min + (1 - t_min) * t)[:, None]
