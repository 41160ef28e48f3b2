"""Schedules: the signal level alpha at time t.

    alpha(t) falls from 1 (clean, t = 0) to eps or 0 (noise, t = 1);  slope = d alpha / dt < 0;
    inverse(alpha(t)) = t

The curves of this file are base curves evaluated at u = (1 - eps) t, so that alpha(1) stays above 0
when eps > 0; `Stepwise` reduces any curve to its levels at T steps. Objectives use alpha and slope;
samplers use alpha, and inverse for grids in alpha.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from platform_core.learned import learns
from platform_core.types import Noise, Tokens

MOST_STEPS = 10**7
"""The most steps of a grid of times, each of which is kept in memory."""


class Schedule(ABC):
    """The signal level alpha as a function of time; each method returns a tensor of the shape and
    dtype of its argument.
    """

    @abstractmethod
    def alpha(self, t: Noise) -> Noise:
        """Probability that noise has not replaced a token by time t in [0, 1]."""

    @abstractmethod
    def slope(self, t: Noise) -> Noise:
        """Derivative d alpha / dt, per unit of time."""

    @abstractmethod
    def inverse(self, alpha: Noise) -> Noise:
        """Time at which the signal level is alpha."""


class LogLinear(Schedule):
    """Alpha falls linearly: alpha = 1 - (1 - eps) t, so that -log(1 - alpha) is
    log-linear in t.

    Args:
        eps: signal left at t = 1. The published models use 1e-3; 0 is exact.

    Source: MDLM, arXiv:2406.07524, section 3 (there in terms of sigma = -log alpha).
    """

    def __init__(self, eps: float = 1e-3) -> None:
        self.eps = _fraction(eps)

    def alpha(self, t: Noise) -> Noise:
        """1 - (1 - eps) t."""
        return 1 - (1 - self.eps) * t

    def slope(self, t: Noise) -> Noise:
        """-(1 - eps), at every t."""
        return torch.full_like(t, -(1 - self.eps))

    def inverse(self, alpha: Noise) -> Noise:
        """(1 - alpha) / (1 - eps)."""
        return (1 - alpha) / (1 - self.eps)


class Cosine(Schedule):
    """Alpha = 1 - cos(pi/2 (1 - u)) with u = (1 - eps) t: slow at the noisy end.

    Args:
        eps: fraction of the curve that is cut off at the noisy end; above 0, t = 1 is not pure
            noise.

    Published code leaves the factor (1 - eps) out of the slope and the inverse; both have it here.
    Source: MD4, arXiv:2406.04329, appendix; DUO, arXiv:2506.10892.
    """

    def __init__(self, eps: float = 1e-3) -> None:
        self.eps = _fraction(eps)

    def alpha(self, t: Noise) -> Noise:
        """1 - cos(pi/2 (1 - u)), written with sin^2 of half the angle to stay precise near 0."""
        return 2 * torch.sin(self._angle(t) / 2).square()

    def slope(self, t: Noise) -> Noise:
        """-(1 - eps) pi/2 sin(pi/2 (1 - u))."""
        return -(1 - self.eps) * (math.pi / 2) * torch.sin(self._angle(t))

    def inverse(self, alpha: Noise) -> Noise:
        """(1 - (2/pi) acos(1 - alpha)) / (1 - eps)."""
        angle = 2 * torch.asin(torch.sqrt(alpha / 2))
        return (1 - angle / (math.pi / 2)) / (1 - self.eps)

    def _angle(self, t: Noise) -> Noise:
        return (math.pi / 2) * (1 - (1 - self.eps) * t)


class Polynomial(Schedule):
    """Alpha = 1 - u^exponent with u = (1 - eps) t; exponent 1 is log-linear.

    Args:
        exponent: above 0; values above 1 keep tokens clean for longer, values below 1 noise them
            sooner.
        eps: fraction of the curve that is cut off at the noisy end; above 0, t = 1 is not pure
            noise.

    Source: MD4, arXiv:2406.04329; exponents 2 and 1/2 are the "square" and "square root" of BD3-LM,
    arXiv:2503.09573.
    """

    def __init__(self, exponent: float = 2.0, eps: float = 1e-3) -> None:
        if not 0 < exponent < math.inf:
            raise ValueError(f"exponent is {exponent:g}; it must be above 0, for example 2")
        self.exponent = exponent
        self.eps = _fraction(eps)

    def alpha(self, t: Noise) -> Noise:
        return 1 - ((1 - self.eps) * t).pow(self.exponent)

    def slope(self, t: Noise) -> Noise:
        """-(1 - eps) exponent u^(exponent - 1); infinite at t = 0 when the exponent is below 1."""
        return -(1 - self.eps) * self.exponent * ((1 - self.eps) * t).pow(self.exponent - 1)

    def inverse(self, alpha: Noise) -> Noise:
        """(1 - alpha)^(1/exponent) / (1 - eps)."""
        return (1 - alpha).pow(1 / self.exponent) / (1 - self.eps)


class Stepwise(Schedule):
    """The signal levels of T even steps, as a schedule in continuous time.

        alpha(t) = alpha_i,  slope(t) = -T (alpha_{i-1} - alpha_i),  i = ceil(t T)

    alpha_i is alpha(i / T) of another schedule, except that alpha_0 = 1 and alpha_T = 0: sampling
    starts from pure noise and ends with clean text, whatever the other schedule's levels at its
    ends. The bound of T steps is then a bound in continuous time: an integral over levels that are
    constant on each interval of length 1 / T. Levels of a schedule with weights are computed anew
    in every call.

    Args:
        schedule: the other schedule.
        num_steps: number of steps T, from 1 to `MOST_STEPS`.
    """

    def __init__(self, schedule: Schedule, num_steps: int) -> None:
        if num_steps < 1:
            raise ValueError(f"num_steps is {num_steps}; it must be at least 1, for example 1000")
        if num_steps > MOST_STEPS:
            raise ValueError(f"num_steps is {num_steps}; it must be at most {MOST_STEPS}")
        self.num_steps = num_steps
        self._schedule = schedule
        # On the CPU whatever the default device is, because the meta device holds no values.
        self._kept = None if learns(schedule) else self._levels(torch.device("cpu"))

    def alpha(self, t: Noise) -> Noise:
        """The level at the first of the times i / T that is not before t."""
        return self._at(self._step(t), t)

    def slope(self, t: Noise) -> Noise:
        """Change of alpha over the step around t, per unit of time."""
        step = self._step(t).clamp_min(1)
        return self.num_steps * (self._at(step, t) - self._at(step - 1, t))

    def inverse(self, alpha: Noise) -> Noise:
        """The first of the times i / T, or 0, at which the level is at most alpha."""
        falling = -self._all(alpha)
        return torch.searchsorted(falling, -alpha).to(alpha.dtype) / self.num_steps

    def _step(self, t: Noise) -> Tokens:
        return (t * self.num_steps).ceil().long()

    def _at(self, step: Tokens, like: Noise) -> Noise:
        return self._all(like)[step]

    def _all(self, like: Noise) -> Tensor:
        """The levels of all times i / T, `[T + 1]`, in the dtype of another level."""
        levels = self._levels(like.device) if self._kept is None else self._kept
        return levels.to(like)

    def _levels(self, device: torch.device) -> Tensor:
        grid = torch.linspace(0, 1, self.num_steps + 1, dtype=torch.float64, device=device)
        return torch.cat((1 - grid[:1], self._schedule.alpha(grid[1:-1]), 1 - grid[-1:]))


def _fraction(eps: float) -> float:
    if not 0 <= eps < 1:
        raise ValueError(
            f"eps is {eps:g}; it must be at least 0 (exact) and below 1; papers use 1e-3"
        )
    return eps
