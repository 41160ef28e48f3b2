"""Where the steps of a Psi walk are: its segments, and the times of its steps.

A walk has three segments, at high, middle and low noise. Each falls evenly from where the one
before it ended; or the middle one stays where it is, and its steps correct without denoising.
"""

import re
from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple, final

import torch

from platform_core.sampler import LAST_TIME, even_times
from platform_core.schedule import Schedule
from platform_core.types import Noise


class Segments(NamedTuple):
    """How many steps each segment has; together at least 1."""

    high: int
    middle: int
    low: int

    @classmethod
    def share(cls, steps: int, high_frac: float, middle_frac: float) -> "Segments":
        """So many steps, of which these shares, rounded, are in the first two segments.

        Raises:
            ValueError: a share is negative, or they sum to more than 1.
        """
        # Not (>= 0) rather than (< 0): NaN is no share either.
        if not (high_frac >= 0 and middle_frac >= 0 and high_frac + middle_frac <= 1 + 1e-9):
            raise ValueError(
                f"high_frac is {high_frac:g} and middle_frac {middle_frac:g}; they must be at "
                "least 0 and sum to at most 1; what they leave is at low noise"
            )
        middle_begins, low_begins = (
            round(share * steps) for share in (high_frac, high_frac + middle_frac)
        )
        return cls(middle_begins, low_begins - middle_begins, steps - low_begins)


class Profile(ABC):
    """The times that a walk goes through.

    `pauses` is whether the middle segment stays where it is, which takes a step before it.

    Source: Psi-samplers, arXiv:2602.21185.
    """

    pauses: ClassVar[bool] = False

    @abstractmethod
    def times(self, segments: Segments, schedule: Schedule, device: torch.device) -> Noise:
        """From 1 down to `LAST_TIME`, or to a pause that nothing follows; one more than there are
        steps, `[steps + 1, 1, 1]`.
        """


@final
class Linear(Profile):
    """Even steps, whatever their segment: the times of the ancestral sampler."""

    def times(self, segments: Segments, schedule: Schedule, device: torch.device) -> Noise:
        return even_times(sum(segments), device)


class Pause(Profile, ABC):
    """Even steps to the time of a pause, all of the middle segment there, and even steps on.

    The published grid begins the last segment at the pause again, which costs the first segment a
    step; with a single point there, it never leaves the pause.
    """

    pauses: ClassVar[bool] = True

    @abstractmethod
    def pause(self, schedule: Schedule) -> float:
        """Time of the pause."""

    def times(self, segments: Segments, schedule: Schedule, device: torch.device) -> Noise:
        """Two lines with a plateau between them."""
        # A schedule may not reach the level that is asked for.
        pause = min(max(self.pause(schedule), LAST_TIME), 1.0)
        falling, on = (
            torch.linspace(start, end, steps + 1, dtype=torch.float64, device=device)
            for start, end, steps in ((1, pause, segments.high), (pause, LAST_TIME, segments.low))
        )
        staying = torch.full((segments.middle,), pause, dtype=torch.float64, device=device)
        return torch.cat((falling, staying, on[1:])).view(-1, 1, 1)


@final
class PauseAtTime(Pause):
    """A pause at a time.

    Args:
        time: above 0 and below 1.
    """

    def __init__(self, time: float) -> None:
        self.time = time

    def pause(self, schedule: Schedule) -> float:
        return self.time


@final
class PauseAtLevel(Pause):
    """A pause at a signal level, whatever the schedule.

    Args:
        alpha: above 0 and below 1.
    """

    def __init__(self, alpha: float) -> None:
        self.alpha = alpha

    def pause(self, schedule: Schedule) -> float:
        """The schedule's time for it."""
        return float(schedule.inverse(torch.tensor([[self.alpha]], dtype=torch.float64)))


def profile_of(name: str) -> Profile:
    """The profile that goes by a name, for example linear-constant-linear-0.9-inv.

    Raises:
        ValueError: none does, or it would pause at pure noise or at clean text.
    """
    if name == "linear":
        return Linear()
    found = _PAUSING.fullmatch(name)
    if not found:
        raise ValueError(
            f"profile {name!r} is unknown; it is linear, linear-constant-linear-TIME or "
            "linear-constant-linear-ALPHA-inv, for example linear-constant-linear-0.9-inv"
        )
    where = float(found["where"])
    if not 0 < where < 1:
        raise ValueError(
            f"profile {name!r} pauses at {where:g}; it must be above 0 and below 1, for example 0.9"
        )
    return PauseAtLevel(where) if found["inverse"] else PauseAtTime(where)


_PAUSING = re.compile(r"linear-constant-linear-(?P<where>\d*\.?\d+(e-?\d+)?)(?P<inverse>-inv)?")
