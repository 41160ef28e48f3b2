"""The sampler: how text is drawn.

    x_1 ~ prior;  x_s ~ q(x_s | x_t, prediction(x_t)) along a falling grid of times;  then one last
    call that removes noise

`GridSampler` has the walk and its options, and `Walk` the reverse step; a sampler says what one
step is and, where it needs another grid, at which signal levels to stop.
"""

import math
from typing import Any, final

import torch

from platform_core.sampler import GridSampler, Walk, even_times
from platform_core.schedule import Schedule
from platform_core.types import Noise, Tokens


@final
class NewPart(GridSampler):
    """Walks the reverse process on a grid of times that is finer where text is almost clean.

    Args:
        bend: times are even times to this power; 1 is the sampler ancestral. Above 0.
        options: those of every sampler on a grid.

    Raises:
        ValueError: an option is out of range.
    """

    def __init__(self, bend: float = 1.5, **options: Any) -> None:
        super().__init__(**options)
        if not 0 < bend < math.inf:
            raise ValueError(f"bend is {bend:g}; it must be above 0; 1 is an even grid")
        self.bend = bend

    def alphas(self, schedule: Schedule, device: torch.device) -> Noise:
        """Signal levels at even times to the power `bend`."""
        return schedule.alpha(even_times(self.steps, device) ** self.bend)

    def step(self, walk: Walk, x_t: Tokens, alpha_s: Noise, alpha_t: Noise) -> Tokens:
        """A draw from the posterior."""
        return walk.step(x_t, alpha_s, alpha_t)
