"""Strategies of ReMDM: each gives sigma, the probability with which a token is masked again.

    sigma in [0, sigma_max],  sigma_max = min(1, (1 - alpha_s) / alpha_t)

is the probability with which a token becomes a mask again in a step from alpha_t to alpha_s. Up to
sigma_max, a step takes the law q(x_t | x_0) to q(x_s | x_0) for every clean text x_0.
"""

from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Tensor

from platform_core.schedule import Schedule
from platform_core.types import Noise


class Remasking(ABC):
    """A strategy: the signal level at each time of the sampler, and sigma in each step.

    Source: ReMDM, arXiv:2503.00307, section 4.
    """

    @abstractmethod
    def alpha(self, t: Noise, schedule: Schedule) -> Noise:
        """Signal level at time t."""

    @abstractmethod
    def sigma(self, t: Noise, limit: Noise, confidence: Noise) -> Noise:
        """Probability with which each token is masked again in the step that starts at t.

        Args:
            t: time at which the step starts.
            limit: sigma_max of this step.
            confidence: probability that each token had when it was drawn; infinite for masks and
                for given tokens, which stay.
        """


@final
class Cap(Remasking):
    """sigma = min(eta, sigma_max).

    Args:
        eta: largest sigma; the paper takes .02 to .04, its code also .008.
    """

    def __init__(self, eta: float = 0.02) -> None:
        self.eta = _fraction(eta)

    def alpha(self, t: Noise, schedule: Schedule) -> Noise:
        return schedule.alpha(t)

    def sigma(self, t: Noise, limit: Noise, confidence: Noise) -> Noise:
        return limit.clamp_max(self.eta)


@final
class Rescale(Remasking):
    """sigma = eta sigma_max.

    Args:
        eta: share of sigma_max; the paper's code takes .015.
    """

    def __init__(self, eta: float = 0.015) -> None:
        self.eta = _fraction(eta)

    def alpha(self, t: Noise, schedule: Schedule) -> Noise:
        return schedule.alpha(t)

    def sigma(self, t: Noise, limit: Noise, confidence: Noise) -> Noise:
        return self.eta * limit


@final
class Confidence(Remasking):
    """sigma = eta sigma_max softmax(-confidence) over the tokens of a sequence, so that unlikely
    tokens are masked first.

    Args:
        eta: share of sigma_max; the published code takes 1.
    """

    def __init__(self, eta: float = 1.0) -> None:
        self.eta = _fraction(eta)

    def alpha(self, t: Noise, schedule: Schedule) -> Noise:
        return schedule.alpha(t)

    def sigma(self, t: Noise, limit: Noise, confidence: Noise) -> Noise:
        """A share of sigma_max, distributed over the unmasked tokens of each sequence."""
        # In a sequence of masks alone the softmax is 0 / 0.
        return self.eta * limit * (-confidence).softmax(-1).nan_to_num(0.0)


@final
class Loop(Remasking):
    """Denoises to the level alpha_on, stays there and redraws tokens, then denoises to the end.

        t > t_on            alpha = (1 - t) alpha_on / (1 - t_on)        sigma = 0
        t_off < t <= t_on   alpha = alpha_on                             sigma = min(eta, sigma_max)
        t <= t_off          alpha = 1 - t (1 - alpha_on) / t_off         sigma = 0

    The schedule of the model has no effect.

    Args:
        eta: sigma within the loop, where it is at most sigma_max.
        t_on: time at which the loop begins.
        t_off: time at which the loop ends, below t_on.
        alpha_on: signal level within the loop, the share of tokens that are not masks.
    """

    def __init__(
        self, eta: float = 0.02, *, t_on: float = 0.55, t_off: float = 0.05, alpha_on: float = 0.9
    ) -> None:
        if not 0 < t_off < t_on < 1:
            raise ValueError(
                f"t_on is {t_on:g} and t_off {t_off:g}, but 0 < t_off < t_on < 1; "
                "the paper takes 0.55 and 0.05"
            )
        if not 0 < alpha_on < 1:
            raise ValueError(
                f"alpha_on is {alpha_on:g}; it must be above 0 and below 1; the paper takes 0.9"
            )
        self.eta = _fraction(eta)
        self.t_on, self.t_off, self.alpha_on = t_on, t_off, alpha_on

    def alpha(self, t: Noise, schedule: Schedule) -> Noise:
        before = (1 - t) * self.alpha_on / (1 - self.t_on)
        after = 1 - t * (1 - self.alpha_on) / self.t_off
        return torch.where(t > self.t_on, before, torch.where(t > self.t_off, self.alpha_on, after))

    def sigma(self, t: Noise, limit: Noise, confidence: Noise) -> Noise:
        inside: Tensor = (t > self.t_off) & (t <= self.t_on)
        return torch.where(inside, limit.clamp_max(self.eta), 0.0)


def _fraction(eta: float) -> float:
    if not 0 <= eta <= 1:
        raise ValueError(
            f"eta is {eta:g}; it must be at least 0 (no remasking) and at most 1, for example 0.02"
        )
    return eta
