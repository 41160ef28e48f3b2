"""Laws of schedules: range, derivative and inverse of alpha(t)."""

import torch
from torch import Tensor

from platform_core.schedule import Schedule
from platform_core.testing.law import Figures, Laws, require
from platform_core.testing.learned import trained_right, without_weights
from platform_core.testing.subject import Subject

LAWS = Laws("schedule")

NUM_STATES = 12
STEP = 1e-5


def make(subject: Subject) -> Schedule:
    """The schedule with its default options."""
    schedule: Schedule = subject.make(vocab_size=NUM_STATES, num_states=NUM_STATES)
    return schedule


def times(number: int = 99) -> Tensor:
    """Times inside (0, 1), `[number, 1]`, float64."""
    return torch.linspace(0.01, 0.99, number, dtype=torch.float64)[:, None]


def worst(found: Tensor, expected: Tensor, at: Tensor, allowed: float, what: str) -> str:
    """Require two curves to agree; return their largest difference as text."""
    difference = (found - expected).abs() / expected.abs().clamp_min(1)
    place = int(difference.nan_to_num(torch.inf).argmax())
    here = f"{what} is {found.flatten()[place]:.9g} and should be {expected.flatten()[place]:.9g} "
    here += f"at {at.flatten()[place]:.4g}"
    require(bool((difference <= allowed).all()), f"{here} (allowed: {allowed:g})")
    return f"largest difference {float(difference.max()):.1e}"


@LAWS.law()
def ends(subject: Subject) -> Figures:
    """alpha is 1 at t = 0 and 0 at t = 1, up to 0.05."""
    start, end = make(subject).alpha(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()
    figures = f"alpha(0) = {start:.6g}, alpha(1) = {end:.6g}"
    require(abs(1 - start) <= 0.05 + 1e-9 and abs(end) <= 0.05 + 1e-9, figures)
    return figures


@LAWS.law()
def range_(subject: Subject) -> Figures:
    """alpha is in [0, 1] at every time in [0, 1]."""
    t = torch.linspace(0, 1, 201, dtype=torch.float64)
    alpha = make(subject).alpha(t)
    lowest, highest = float(alpha.min()), float(alpha.max())
    require(0 <= lowest <= highest <= 1, f"alpha is from {lowest:.6g} to {highest:.6g}")
    return f"{lowest:.6g} to {highest:.6g}"


@LAWS.law()
def falls(subject: Subject) -> Figures:
    """alpha falls, and slope is below 0."""
    schedule, t = make(subject), times()
    steps = schedule.alpha(t).diff(dim=0)
    place = int(steps.argmax())
    require(
        bool((steps < 0).all()), f"alpha rises by {float(steps.max()):.3g} at {t[place, 0]:.4g}"
    )
    slope = schedule.slope(t)
    require(bool((slope < 0).all()), f"slope is {float(slope.max()):.3g} somewhere")
    return None


@LAWS.law()
def slope(subject: Subject) -> Figures:
    """slope is the derivative of alpha."""
    schedule, t = make(subject), times()
    central = (schedule.alpha(t + STEP) - schedule.alpha(t - STEP)) / (2 * STEP)
    return worst(schedule.slope(t), central, t, 1e-5, "slope")


@LAWS.law()
def inverse(subject: Subject) -> Figures:
    """inverse(alpha(t)) is t, and alpha(inverse(a)) is a."""
    schedule, t = make(subject), times()
    back = worst(schedule.inverse(schedule.alpha(t)), t, t, 1e-5, "inverse(alpha(t))")
    start, end = schedule.alpha(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()
    levels = torch.linspace(start, end, 101, dtype=torch.float64)[1:-1, None]
    there = schedule.alpha(schedule.inverse(levels))
    return f"{back}; {worst(there, levels, levels, 1e-6, 'alpha(inverse(a))')}"


@LAWS.law()
def shapes_and_dtypes(subject: Subject) -> Figures:
    """alpha, slope and inverse keep the shape and the dtype of what they are given."""
    schedule = make(subject)
    for dtype in (torch.float64, torch.float32):
        for shape in ((4, 1), (4, 6), (3, 1, 1), ()):
            t = torch.linspace(0.2, 0.8, 24, dtype=dtype)[: torch.Size(shape).numel()].view(shape)
            for name in ("alpha", "slope", "inverse"):
                found = getattr(schedule, name)(t)
                figures = f"{name} makes {found.dtype} {tuple(found.shape)} of {dtype} {shape}"
                require(found.shape == t.shape and found.dtype == dtype, figures)
    return None


@LAWS.law()
def elementwise(subject: Subject) -> Figures:
    """The values at a time do not depend on the other times of the tensor."""
    schedule, t = make(subject), times(7)
    for name in ("alpha", "slope", "inverse"):
        method = getattr(schedule, name)
        alone = torch.cat([method(one[None]) for one in t])
        worst(method(t), alone, t, 1e-12, name)
    return None


@LAWS.law(against=without_weights, silent=True)
def trains_its_weights(subject: Subject) -> Figures:
    """The mean gradient that training gives the weights is the derivative of the mean loss, the law
    of the noise included; every noisy text of two tokens is enumerated.
    """
    return trained_right(subject)
