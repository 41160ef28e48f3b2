"""The sampler: draws text from a trained model.

    x_1 ~ prior;  x_s ~ q(x_s | x_t, prediction(x_t)) along a falling grid of times;  then one last
    call that removes noise

`GridSampler` implements the walk and its options, and `Walk` the reverse step. A sampler implements
one step and, if it needs an uneven grid, the signal levels of the grid.
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
        bend: times are even times to this power; 1 equals the sampler ancestral. Must be above 0.
        options: options of `GridSampler`.

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
        """Draw x_s from the reverse step."""
        return walk.step(x_t, alpha_s, alpha_t)
