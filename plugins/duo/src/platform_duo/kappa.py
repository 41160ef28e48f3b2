"""Modes of a Psi step: each gives kappa, the share of the posterior in the step.

    kappa in [0, 1]:  at 1 the posterior alone, at 0 the correction alone

Under masks, a step masks a token again with probability sigma = (1 - kappa) (1 - alpha_s). So the
strategies of ReMDM, which choose sigma, are modes too:

    kappa = 1 - sigma / (1 - alpha_s), clipped to [0, 1]

ReMDM also allows sigma above 1 - alpha_s, for which there is no kappa.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import final

import torch

from platform_core.types import Noise


class Mixing(ABC):
    """A mode: the share kappa of the posterior in each step.

    Source: Psi-samplers, arXiv:2602.21185.
    """

    @abstractmethod
    def kappa(self, alpha_s: Noise, alpha_t: Noise) -> Noise:
        """Probability that a step from alpha_t to alpha_s draws a token from the posterior."""


@final
class Constant(Mixing):
    """The same kappa in every step.

    Args:
        kappa: from 0 to 1.
    """

    def __init__(self, kappa: float) -> None:
        self.share = _fraction("kappa", kappa)

    def kappa(self, alpha_s: Noise, alpha_t: Noise) -> Noise:
        return torch.full_like(alpha_s, self.share)


class Remasking(Mixing, ABC):
    """A mode given by sigma, the probability with which a step masks a token again.

    Args:
        eta: size of sigma, from 0 to 1.

    Source: ReMDM, arXiv:2503.00307, section 4.
    """

    def __init__(self, eta: float) -> None:
        self.eta = _fraction("eta", eta)

    @abstractmethod
    def sigma(self, limit: Noise) -> Noise:
        """Probability of masking a token again, in a step with this upper limit."""

    def kappa(self, alpha_s: Noise, alpha_t: Noise) -> Noise:
        """The kappa that corresponds to `sigma` at the limit min(1, (1 - alpha_s) / alpha_t)."""
        limit = ((1 - alpha_s) / alpha_t).clamp_max(1)
        kappa = (1 - self.sigma(limit) / (1 - alpha_s)).clamp(0, 1)
        # At alpha_s = 1 the quotient may be 0 / 0; every kappa then gives the same law.
        return kappa.nan_to_num(nan=1.0)


@final
class MaxCapped(Remasking):
    """sigma = min(eta, limit)."""

    def sigma(self, limit: Noise) -> Noise:
        return limit.clamp_max(self.eta)


@final
class MaxRescale(Remasking):
    """sigma = eta limit."""

    def sigma(self, limit: Noise) -> Noise:
        return self.eta * limit


@final
class MaxRescaleSquared(Remasking):
    """sigma = eta min(eta, limit), which is eta^2 until the limit falls below eta.

    The published code computes this sigma under the name max-rescale.
    """

    def sigma(self, limit: Noise) -> Noise:
        return self.eta * limit.clamp_max(self.eta)


@final
class ConstantRemdm(Remasking):
    """sigma = eta in every step; where eta is above the limit, kappa is 0."""

    def sigma(self, limit: Noise) -> Noise:
        return torch.full_like(limit, self.eta)


def mixing_of(mode: str) -> Mixing:
    """The mode with this name, for example pure-posterior or max-capped-0.01.

    Raises:
        ValueError: the name is unknown, or its number is not from 0 to 1.
    """
    if mode in _PURE:
        return Constant(_PURE[mode])
    found = _NUMBERED_MODE.fullmatch(mode)
    if not found:
        possible = ", ".join([*_PURE, *(f"{name}-NUMBER" for name in _NUMBERED)])
        raise ValueError(
            f"mode {mode!r} is unknown; choose one of {possible}, for example max-capped-0.01"
        )
    return _NUMBERED[found["name"]](float(found["number"]))


def _fraction(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value:g}; it must be at least 0 and at most 1")
    return value


_PURE: Mapping[str, float] = {"pure-posterior": 1.0, "pure-pc": 0.0}

_NUMBERED: Mapping[str, Callable[[float], Mixing]] = {
    "constant": Constant,
    "max-capped": MaxCapped,
    "max-rescale": MaxRescale,
    "max-rescale-squared": MaxRescaleSquared,
    "constant-remdm": ConstantRemdm,
}

_NUMBERED_MODE = re.compile(rf"(?P<name>{'|'.join(_NUMBERED)})-(?P<number>\d*\.?\d+(e-?\d+)?)")
