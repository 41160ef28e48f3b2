"""How much ReMDM masks again: its strategies, one object each.

    sigma in [0, sigma_max],  sigma_max = min(1, (1 - alpha_s) / alpha_t)

is the chance with which a token goes back to the mask in a step from alpha_t to alpha_s. Within the
limit, one step takes the law q(x_t | x_0) of every clean text to q(x_s | x_0).
"""

from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Tensor

from platform_core.schedule import Schedule
from platform_core.types import Noise


class Remasking(ABC):
    """Noise levels along the sampler's times, and sigma at each step.

    Source: ReMDM, arXiv:2503.00307, section 4.
    """

    @abstractmethod
    def alpha(self, t: Noise, schedule: Schedule) -> Noise:
        """Signal level at time t."""

    @abstractmethod
    def sigma(self, t: Noise, limit: Noise, confidence: Noise) -> Noise:
        """Chance of each token to be masked again in the step that starts at t.

        Args:
            t: time.
            limit: sigma_max of this step.
            confidence: probability that each token had when it was drawn; infinite for masks and
                for given tokens, which stay.
        """


@final
class Cap(Remasking):
    """sigma = min(eta, sigma_max).

    Args:
        eta: the paper takes .02 to .04, its code also .008.
    """

    def __init__(self, eta: float = 0.02) -> None:
        self.eta = _fraction(eta)

    def alpha(self, t: Noise, schedule: Schedule) -> Noise:
        return schedule.alpha(t)

    def sigma(self, t: Noise, limit: Noise, confidence: Noise) -> Noise:
        """The same chance until sigma_max falls below it."""
        return limit.clamp_max(self.eta)


@final
class Rescale(Remasking):
    """sigma = eta sigma_max.

    Args:
        eta: the paper's code takes .015.
    """

    def __init__(self, eta: float = 0.015) -> None:
        self.eta = _fraction(eta)

    def alpha(self, t: Noise, schedule: Schedule) -> Noise:
        return schedule.alpha(t)

    def sigma(self, t: Noise, limit: Noise, confidence: Noise) -> Noise:
        """A share of sigma_max."""
        return self.eta * limit


@final
class Confidence(Remasking):
    """sigma = eta sigma_max softmax(-confidence) over the tokens of a sequence: what was unlikely
    goes first.

    Args:
        eta: 1 is the published code.
    """

    def __init__(self, eta: float = 1.0) -> None:
        self.eta = _fraction(eta)

    def alpha(self, t: Noise, schedule: Schedule) -> Noise:
        return schedule.alpha(t)

    def sigma(self, t: Noise, limit: Noise, confidence: Noise) -> Noise:
        """A share of sigma_max, dealt among the tokens that are not masked."""
        # A sequence of masks alone has no softmax: 0 / 0.
        return self.eta * limit * (-confidence).softmax(-1).nan_to_num(0.0)


@final
class Loop(Remasking):
    """Falls to alpha_on, stays there and redraws, and falls on.

        t > t_on            alpha = (1 - t) alpha_on / (1 - t_on)        sigma = 0
        t_off < t <= t_on   alpha = alpha_on                             sigma = min(eta, sigma_max)
        t <= t_off          alpha = 1 - t (1 - alpha_on) / t_off         sigma = 0

    The model's own schedule is not read.

    Args:
        eta: sigma within the loop, up to sigma_max.
        t_on: time at which the loop begins.
        t_off: time at which it ends, below t_on.
        alpha_on: share of the text that is there meanwhile.
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
        """Two lines with a plateau between them."""
        before = (1 - t) * self.alpha_on / (1 - self.t_on)
        after = 1 - t * (1 - self.alpha_on) / self.t_off
        return torch.where(t > self.t_on, before, torch.where(t > self.t_off, self.alpha_on, after))

    def sigma(self, t: Noise, limit: Noise, confidence: Noise) -> Noise:
        """The capped chance within the loop, else 0."""
        inside: Tensor = (t > self.t_off) & (t <= self.t_on)
        return torch.where(inside, limit.clamp_max(self.eta), 0.0)


def _fraction(eta: float) -> float:
    if not 0 <= eta <= 1:
        raise ValueError(
            f"eta is {eta:g}; it must be at least 0 (no remasking) and at most 1, for example 0.02"
        )
    return eta
