"""The noise levels that a sampler of T steps visits, as a schedule of continuous time.

With it, the bound of T steps is the bound of continuous time: the same integral over the same row
function, of which the levels are constant between i - 1 and i T-ths.
"""

from typing import final

import torch

from platform_core.schedule import Schedule
from platform_core.types import Noise, Tokens


@final
class Stepwise(Schedule):
    """Levels of T even steps from pure noise to clean text.

        alpha(t) = alpha_i,  slope(t) = -T (alpha_{i-1} - alpha_i),  i = ceil(t T)

    alpha_i is another schedule's alpha(i / T), except that alpha_0 = 1 and alpha_T = 0: sampling
    starts from masks alone and ends with none, whatever the other schedule leaves at its ends.

    Args:
        schedule: the other.
        num_steps: T, at least 1.
    """

    def __init__(self, schedule: Schedule, num_steps: int) -> None:
        if num_steps < 1:
            raise ValueError(
                f"num_steps is {num_steps}; it must be at least 1, for example 1000; "
                "leave it out for continuous time"
            )
        # On the CPU whatever the default device, because the meta device has no values.
        grid = torch.linspace(0, 1, num_steps + 1, dtype=torch.float64, device="cpu")
        self.num_steps = num_steps
        self._alphas = torch.cat((1 - grid[:1], schedule.alpha(grid[1:-1]), 1 - grid[-1:]))

    def alpha(self, t: Noise) -> Noise:
        """The level at the next of the T times."""
        return self._at(self._step(t), t)

    def slope(self, t: Noise) -> Noise:
        """What is lost over the step around t, per unit of time."""
        step = self._step(t).clamp_min(1)
        return self.num_steps * (self._at(step, t) - self._at(step - 1, t))

    def inverse(self, alpha: Noise) -> Noise:
        """The first of the T times (or 0) at which no more than alpha is left."""
        falling = -self._alphas.to(alpha)
        return torch.searchsorted(falling, -alpha).to(alpha.dtype) / self.num_steps

    def _step(self, t: Noise) -> Tokens:
        return (t * self.num_steps).ceil().long()

    def _at(self, step: Tokens, like: Noise) -> Noise:
        return self._alphas.to(like)[step]
