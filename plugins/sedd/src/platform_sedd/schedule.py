"""SEDD's schedule: the noise level grows geometrically.

alpha = exp(-sigma),  sigma = sigma_min^(1 - t) sigma_max^t
"""

import math
from typing import final

from platform_core.schedule import Schedule
from platform_core.types import Noise

LARGEST_SIGMA = 700.0
"""exp(-sigma) of a larger sigma is no normal number of float64."""


@final
class Geometric(Schedule):
    """Sigma = -log alpha grows by the same factor in equal times.

    There is a little noise at t = 0, alpha = exp(-sigma_min), and a little signal at t = 1, alpha =
    exp(-sigma_max).

    Args:
        sigma_min: sigma at t = 0; the paper names 1e-5, its code 1e-4.
        sigma_max: sigma at t = 1, at most 700: beyond, alpha rounds to 0.

    Source: SEDD, arXiv:2310.16834, section 5.
    """

    def __init__(self, sigma_min: float = 1e-4, sigma_max: float = 20.0) -> None:
        if not 0 < sigma_min < sigma_max <= LARGEST_SIGMA:
            raise ValueError(
                f"sigma_min is {sigma_min:g} and sigma_max {sigma_max:g}, but 0 < sigma_min < "
                f"sigma_max <= {LARGEST_SIGMA:g}; the published values are 1e-4 and 20"
            )
        self.sigma_min, self.sigma_max = sigma_min, sigma_max
        self._log_ratio = math.log(sigma_max) - math.log(sigma_min)

    def alpha(self, t: Noise) -> Noise:
        return (-self._sigma(t)).exp()

    def slope(self, t: Noise) -> Noise:
        """d alpha / dt = -alpha sigma log(sigma_max / sigma_min)."""
        sigma = self._sigma(t)
        return -(-sigma).exp() * sigma * self._log_ratio

    def inverse(self, alpha: Noise) -> Noise:
        """Time log(sigma / sigma_min) / log(sigma_max / sigma_min); 0 or 1 beyond the ends."""
        sigma = -alpha.log()
        return ((sigma / self.sigma_min).log() / self._log_ratio).clamp(0, 1)

    def _sigma(self, t: Noise) -> Noise:
        return self.sigma_min * (self._log_ratio * t).exp()
