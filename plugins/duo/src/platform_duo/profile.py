"""Segments and times of the steps of the Psi sampler.

Sampling has three segments, at high, middle and low noise. In each, the time falls evenly from the
end of the previous segment; or the middle segment pauses at one time, and its steps correct without
denoising.
"""

import re
from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple, final

import torch

from platform_core.sampler import LAST_TIME, even_times
from platform_core.schedule import Schedule
from platform_core.types import Noise


class Segments(NamedTuple):
    """Number of steps in each segment; the sum is at least 1."""

    high: int
    middle: int
    low: int

    @classmethod
    def share(cls, steps: int, high_frac: float, middle_frac: float) -> "Segments":
        """Divide `steps` into segments; the first two get these shares, rounded to whole steps.

        Raises:
            ValueError: a share is negative, or they sum to more than 1.
        """
        # `not (x >= 0)` instead of `x < 0`, so that NaN is refused too.
        if not (high_frac >= 0 and middle_frac >= 0 and high_frac + middle_frac <= 1 + 1e-9):
            raise ValueError(
                f"high_frac is {high_frac:g} and middle_frac {middle_frac:g}; they must be at "
                "least 0 and sum to at most 1; the other steps are at low noise"
            )
        middle_begins, low_begins = (
            round(share * steps) for share in (high_frac, high_frac + middle_frac)
        )
        return cls(middle_begins, low_begins - middle_begins, steps - low_begins)


class Profile(ABC):
    """The times of the sampler's steps.

    `pauses` says whether the middle segment stays at one time; then a step must come before it.

    Source: Psi-samplers, arXiv:2602.21185.
    """

    pauses: ClassVar[bool] = False

    @abstractmethod
    def times(self, segments: Segments, schedule: Schedule, device: torch.device) -> Noise:
        """Times `[steps + 1, 1, 1]`, from 1 to `LAST_TIME` or to a pause that no step follows."""


@final
class Linear(Profile):
    """Even steps in all segments: the times of the ancestral sampler."""

    def times(self, segments: Segments, schedule: Schedule, device: torch.device) -> Noise:
        return even_times(sum(segments), device)


class Pause(Profile, ABC):
    """Even steps down to a pause, all steps of the middle segment there, then even steps again.

    The published grid begins the last segment at the pause again, so that the first segment has one
    step less; if the last segment has a single point, that grid never leaves the pause.
    """

    pauses: ClassVar[bool] = True

    @abstractmethod
    def pause(self, schedule: Schedule) -> float:
        """Time of the pause, for a schedule."""

    def times(self, segments: Segments, schedule: Schedule, device: torch.device) -> Noise:
        # The schedule may not reach the signal level of the pause.
        pause = min(max(self.pause(schedule), LAST_TIME), 1.0)
        falling, on = (
            torch.linspace(start, end, steps + 1, dtype=torch.float64, device=device)
            for start, end, steps in ((1, pause, segments.high), (pause, LAST_TIME, segments.low))
        )
        staying = torch.full((segments.middle,), pause, dtype=torch.float64, device=device)
        return torch.cat((falling, staying, on[1:])).view(-1, 1, 1)


@final
class PauseAtTime(Pause):
    """A pause at a fixed time.

    Args:
        time: above 0 and below 1.
    """

    def __init__(self, time: float) -> None:
        self.time = time

    def pause(self, schedule: Schedule) -> float:
        return self.time


@final
class PauseAtLevel(Pause):
    """A pause at a fixed signal level, at whatever time the schedule has it.

    Args:
        alpha: above 0 and below 1.
    """

    def __init__(self, alpha: float) -> None:
        self.alpha = alpha

    def pause(self, schedule: Schedule) -> float:
        """Time at which the schedule has the signal level of the pause."""
        return float(schedule.inverse(torch.tensor([[self.alpha]], dtype=torch.float64)))


def profile_of(name: str) -> Profile:
    """The profile with this name, for example linear-constant-linear-0.9-inv.

    Raises:
        ValueError: the name is unknown, or the pause is at pure noise or at clean text.
    """
    if name == "linear":
        return Linear()
    found = _PAUSING.fullmatch(name)
    if not found:
        raise ValueError(
            f"profile {name!r} is unknown; choose linear, linear-constant-linear-TIME or "
            "linear-constant-linear-ALPHA-inv, for example linear-constant-linear-0.9-inv"
        )
    where = float(found["where"])
    if not 0 < where < 1:
        raise ValueError(
            f"profile {name!r} pauses at {where:g}; it must be above 0 and below 1, for example 0.9"
        )
    return PauseAtLevel(where) if found["inverse"] else PauseAtTime(where)


_PAUSING = re.compile(r"linear-constant-linear-(?P<where>\d*\.?\d+(e-?\d+)?)(?P<inverse>-inv)?")
