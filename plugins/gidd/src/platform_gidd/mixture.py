"""The mixture of GIDD at every time: signal, masks and uniform tokens.

    w = sqrt(t (1 - t)),  B = 2 p / (1 - p),  C = 1 + B w
    alpha = (1 - t) / C,   mass of the mask = t / C,   mass of uniform tokens = B w / C

p is the share of uniform tokens at t = 1/2, where it is largest. Masks come last: at t = 1 all is
mask. The process reads the mixture at a signal level, the schedule at a time.

Source: GIDD, arXiv:2503.04482, section 3 and appendix, with its gamma = 1.
"""

from typing import NamedTuple

import torch

from platform_core.types import Noise


class Mixture(NamedTuple):
    """The curves of one p.

    Args:
        scale: B, above 0.
    """

    scale: float

    @classmethod
    def of(cls, p_uniform: float) -> "Mixture":
        """That with this share of uniform tokens at t = 1/2.

        Raises:
            ValueError: the share is not above 0 and below 1.
        """
        if not 0 < p_uniform < 1:
            raise ValueError(
                f"p_uniform is {p_uniform:g}; it must be above 0 and below 1, for example 0.1; "
                "masks alone are process absorbing"
            )
        return cls(2 * p_uniform / (1 - p_uniform))

    def alpha(self, t: Noise) -> Noise:
        """(1 - t) / C."""
        return (1 - t) / self.total(t, 1 - t)

    def slope(self, t: Noise) -> Noise:
        """-(2 sqrt(t) + B sqrt(1 - t)) / (2 sqrt(t) C^2); infinite at t = 0, -1 at t = 1."""
        signal, noise = (1 - t).sqrt(), 2 * t.sqrt()
        return -(noise + self.scale * signal) / (noise * self.total(t, 1 - t).square())

    def times(self, alpha: Noise) -> tuple[Noise, Noise]:
        """T and 1 - t at a signal level, each with all its digits.

            (1 - t - alpha)^2 = b t (1 - t),  b = (alpha B)^2

        whose roots in t have the sum (2 (1 - alpha) + b) / (1 + b) and the product
        (1 - alpha)^2 / (1 + b); t is the smaller.
        """
        b, noise = (alpha * self.scale).square(), 1 - alpha
        root = (b.square() + 4 * b * alpha * noise).sqrt()
        t = 2 * noise.square() / (2 * noise + b + root).clamp_min(torch.finfo(b.dtype).tiny)
        return t, (2 * alpha + b + root) / (2 * (1 + b))

    def total(self, t: Noise, rest: Noise) -> Noise:
        """C, from t and 1 - t."""
        return 1 + self.scale * (t * rest).sqrt()
