"""DUO's schedule: the signal level of the argmax of a Gaussian diffusion.

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
"""Signal levels closer to 1 or 0 than this are lost in rounding."""

Evaluation = Literal["quadrature", "series", "poly9"]

OPERATORS: Mapping[Evaluation, type[Operator]] = {
    "quadrature": Quadrature,
    "series": Series,
    "poly9": Poly9,
}


@final
class Gaussian(Schedule):
    """The signal level of uniform noise that is the argmax of Gaussian noise at gamma(t).

    By default alpha runs from 0.95 to 0.05 instead of 1 to 0; the default gamma_min and gamma_max
    depend on the size of the vocabulary. The bound is not affected: it covers all noise levels, and
    beyond the window the network is told the level at the nearest end. A sampler, however, starts
    from pure noise and treats it as text at alpha(1), in which about one token in 20 is clean; so
    its first steps trust their input too much. The default window is DUO's, made for training; to
    sample, choose a greater gamma_max, or another schedule.

    Args:
        gamma_min: -log of the signal-to-noise ratio at t = 0; by default alpha is 0.95 there.
        gamma_max: -log of the signal-to-noise ratio at t = 1; by default alpha is 0.05 there. DUO's
            windows are -3.55 to -1.85 at 50,257 states and -3.5 to -1.75 at 30,522.
        operator: how alpha is computed: quadrature (exact), series (150 terms, as in DUO's first
            paper, for gamma_min from -4.2 on) or poly9 (the polynomial of DUO's second paper, off
            by 3e-5).

    Raises:
        ValueError: fewer than 2 states, gamma_min not below gamma_max, or a window in which alpha
            rounds to 0 or 1 or which the operator does not cover.

    Source: DUO, arXiv:2506.10892, section 3; for poly9 DUO's second paper, arXiv:2602.21185.
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
        """Ratio of signal to noise amplitude at time t, exp(-gamma / 2), float64."""
        return gaussian.signal_to_noise(self.gamma(t))

    def alpha(self, t: Noise) -> Noise:
        return self.operator.alpha(self.gamma(t)).to(t.dtype)

    def slope(self, t: Noise) -> Noise:
        """d alpha / dt = (gamma_max - gamma_min) d alpha / d gamma."""
        rise = self.gamma_max - self.gamma_min
        return (rise * self.operator.slope(self.gamma(t))).to(t.dtype)

    def inverse(self, alpha: Noise) -> Noise:
        """Time (gamma - gamma_min) / (gamma_max - gamma_min); 0 or 1 outside the window."""
        gamma = self.operator.inverse(alpha.double())
        t = (gamma - self.gamma_min) / (self.gamma_max - self.gamma_min)
        return t.clamp(0, 1).to(alpha.dtype)
