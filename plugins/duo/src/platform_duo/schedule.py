"""DUO's schedule: a Gaussian diffusion seen through its argmax.

gamma(t) = gamma_min + t (gamma_max - gamma_min),   alpha(t) = T(gamma(t))
"""

import math
from collections.abc import Mapping
from typing import Literal, final

from platform_core.schedule import Schedule
from platform_core.types import Noise
from platform_duo import gaussian
from platform_duo.gaussian import Gamma
from platform_duo.operators import Operator, Poly9, Quadrature, Series

MARGIN = 1e-14
"""Levels closer to 1 or 0 than this are lost in the rounding of alpha."""

Evaluation = Literal["quadrature", "series", "poly9"]

OPERATORS: Mapping[Evaluation, type[Operator]] = {
    "quadrature": Quadrature,
    "series": Series,
    "poly9": Poly9,
}


@final
class Gaussian(Schedule):
    """The signal level of uniform noise that is the argmax of Gaussian noise at gamma(t).

    By default alpha runs from 0.95 to 0.05, in which window gamma is chosen for the vocabulary at
    hand, and not from 1 to 0. The bound does not mind: it is over all levels, and beyond the window
    the network is told the level at its end. A sampler starts from pure noise all the same and
    takes it for text at alpha(1), which holds the clean token once in 20 positions or so: its first
    steps trust their input more than they should. At alpha(1) = 0.05 that is DUO's published
    window, made for training; to sample, choose a greater gamma_max, or another schedule.

    Args:
        gamma_min: -log of the signal-to-noise ratio at t = 0; by default alpha is 0.95 there.
        gamma_max: the same at t = 1; by default alpha is 0.05 there. DUO's windows are -3.55 to
            -1.85 at 50,257 states and -3.5 to -1.75 at 30,522.
        operator: how alpha is computed: quadrature (exact), series (the first paper's 150 terms,
            for gamma_min from -4.2 on) or poly9 (the second paper's polynomial, off by 3e-5).

    Raises:
        ValueError: no window, one in which alpha rounds to 0 or 1, or one that the operator does
            not cover.

    Source: DUO, arXiv:2506.10892, section 3.
    """

    def __init__(
        self,
        num_states: int,
        gamma_min: float | None = None,
        gamma_max: float | None = None,
        operator: Evaluation = "quadrature",
    ) -> None:
        if num_states < 2:
            raise ValueError(f"num_states is {num_states}; an argmax needs at least 2")
        default_min, default_max = gaussian.window(num_states)
        self.gamma_min = default_min if gamma_min is None else gamma_min
        self.gamma_max = default_max if gamma_max is None else gamma_max
        lowest, highest = gaussian.window(num_states, 1 - MARGIN, MARGIN)
        if not lowest <= self.gamma_min < self.gamma_max <= highest:
            raise ValueError(
                f"gamma_min is {self.gamma_min:g} and gamma_max {self.gamma_max:g}, but "
                f"{math.ceil(100 * lowest) / 100} <= gamma_min < gamma_max <= "
                f"{math.floor(100 * highest) / 100} at {num_states:,} states (beyond, alpha rounds "
                f"to 1 or 0); alpha is 0.95 at {default_min:.4g} and 0.05 at {default_max:.4g}"
            )
        self.operator = OPERATORS[operator](num_states, self.gamma_min, self.gamma_max)

    def gamma(self, t: Noise) -> Gamma:
        """-log of the signal-to-noise ratio at time t, float64."""
        return self.gamma_min + t.double() * (self.gamma_max - self.gamma_min)

    def mu(self, t: Noise) -> Noise:
        """Signal over noise, exp(-gamma / 2), float64."""
        return gaussian.signal_to_noise(self.gamma(t))

    def alpha(self, t: Noise) -> Noise:
        return self.operator.alpha(self.gamma(t)).to(t.dtype)

    def slope(self, t: Noise) -> Noise:
        """d alpha / d gamma (gamma_max - gamma_min)."""
        rise = self.gamma_max - self.gamma_min
        return (rise * self.operator.slope(self.gamma(t))).to(t.dtype)

    def inverse(self, alpha: Noise) -> Noise:
        """(gamma - gamma_min) / (gamma_max - gamma_min); beyond the ends, the ends' times."""
        gamma = self.operator.inverse(alpha.double())
        t = (gamma - self.gamma_min) / (self.gamma_max - self.gamma_min)
        return t.clamp(0, 1).to(alpha.dtype)
