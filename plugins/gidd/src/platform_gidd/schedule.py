"""GIDD's schedule: the one on which masks grow in a line, if not for uniform tokens.

Any schedule goes with the process, because its noise is a function of the signal level; this is the
one of the paper.
"""

from typing import final

from platform_core.schedule import Schedule
from platform_core.types import Noise
from platform_gidd.mixture import Mixture


@final
class Hybrid(Schedule):
    """Alpha = (1 - t) / C(t), which falls like 1 - const sqrt(t) at first.

    Args:
        p_uniform: share of uniform tokens at t = 1/2, in (0, 1); as the process's in the paper.

    Source: GIDD, arXiv:2503.04482.
    """

    def __init__(self, p_uniform: float = 0.1) -> None:
        self.mixture = Mixture.of(p_uniform)

    def alpha(self, t: Noise) -> Noise:
        """(1 - t) / C."""
        return self.mixture.alpha(t)

    def slope(self, t: Noise) -> Noise:
        """-(2 sqrt(t) + B sqrt(1 - t)) / (2 sqrt(t) C^2); infinite at t = 0."""
        return self.mixture.slope(t)

    def inverse(self, alpha: Noise) -> Noise:
        """The smaller root of a quadratic equation."""
        return self.mixture.times(alpha)[0]
