"""The schedule: the signal level alpha at time t.

alpha(t) = (1 - t)^power,   slope = d alpha / dt,   inverse(alpha(t)) = t
"""

import math
from typing import final

from platform_core.schedule import Schedule
from platform_core.types import Noise


@final
class NewPart(Schedule):
    """Alpha = (1 - t)^power; power 1 is a straight line.

    Args:
        power: above 1 spends more time at high noise. At least 1.

    Raises:
        ValueError: power is below 1, where the slope at t = 1 is infinite.
    """

    def __init__(self, power: float = 2.0) -> None:
        if not 1 <= power < math.inf:
            raise ValueError(f"power is {power:g}; it must be at least 1, for example 2")
        self.power = power

    def alpha(self, t: Noise) -> Noise:
        """(1 - t)^power."""
        return (1 - t) ** self.power

    def slope(self, t: Noise) -> Noise:
        """-power (1 - t)^(power - 1)."""
        return -self.power * (1 - t) ** (self.power - 1)

    def inverse(self, alpha: Noise) -> Noise:
        """1 - alpha^(1 / power)."""
        return 1 - alpha ** (1 / self.power)
