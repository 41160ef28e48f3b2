"""Schedules: curve, slope and inverse agree with each other and with printed values."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from platform_core.schedule import Cosine, LogLinear, Polynomial, Schedule, Stepwise

SCHEDULES = [
    LogLinear(eps=0),
    LogLinear(eps=1e-3),
    Cosine(eps=0),
    Cosine(eps=1e-3),
    *(Polynomial(exponent, eps) for exponent in (0.5, 1, 2, 3.5) for eps in (0, 1e-3)),
]
every_schedule = pytest.mark.parametrize(
    "schedule", SCHEDULES, ids=lambda s: type(s).__name__ + str(list(vars(s).values()))
)

eps = st.floats(0, 0.5)
any_schedule = st.one_of(
    st.builds(LogLinear, eps),
    st.builds(Cosine, eps),
    st.builds(Polynomial, st.floats(0.25, 4), eps),
)


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def grid(start: float, end: float, number: int = 401) -> torch.Tensor:
    return torch.linspace(start, end, number, dtype=torch.float64)[:, None]


@every_schedule
def test_slope_is_the_derivative_of_alpha(schedule: Schedule):
    t = grid(0.001, 0.999).requires_grad_()
    (derivative,) = torch.autograd.grad(schedule.alpha(t).sum(), t)
    torch.testing.assert_close(schedule.slope(t), derivative, rtol=1e-10, atol=1e-12)


@every_schedule
def test_slope_is_the_central_difference_of_alpha(schedule: Schedule):
    t, h = grid(0.01, 0.99), 1e-5
    difference = (schedule.alpha(t + h) - schedule.alpha(t - h)) / (2 * h)
    torch.testing.assert_close(schedule.slope(t), difference, rtol=1e-6, atol=1e-9)


@given(any_schedule, st.floats(0.01, 1))
def test_inverse_of_alpha_is_the_time(schedule: Schedule, t: float):
    inverse = schedule.inverse(schedule.alpha(column(t)))
    torch.testing.assert_close(inverse, column(t), rtol=1e-9, atol=0)


@given(any_schedule, st.floats(0, 1))
def test_alpha_of_inverse_is_alpha(schedule: Schedule, fraction: float):
    end = schedule.alpha(column(1.0))
    alpha = end + fraction * (1 - end)
    torch.testing.assert_close(schedule.alpha(schedule.inverse(alpha)), alpha, rtol=0, atol=1e-13)


@every_schedule
def test_inverse_holds_at_both_ends(schedule: Schedule):
    ends = column(0, 1)
    torch.testing.assert_close(schedule.inverse(schedule.alpha(ends)), ends, rtol=0, atol=1e-12)


@every_schedule
def test_alpha_falls_strictly_from_one(schedule: Schedule):
    alpha = schedule.alpha(grid(0, 1))
    assert alpha[0].item() == pytest.approx(1, abs=1e-15)
    assert alpha[-1] >= 0
    assert (alpha.diff(dim=0) < 0).all()
    assert (schedule.slope(grid(0.01, 0.99)) < 0).all()


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (LogLinear(eps=0), 0),
        (LogLinear(eps=1e-3), 1e-3),
        (Cosine(eps=0), 0),
        (Cosine(eps=1e-3), 1 - math.cos(math.pi / 2 * 1e-3)),
        (Polynomial(2, eps=0), 0),
        (Polynomial(2, eps=1e-3), 1 - 0.999**2),
        (Polynomial(0.5, eps=1e-3), 1 - 0.999**0.5),
    ],
)
def test_alpha_ends_at_noise(schedule: Schedule, expected: float):
    assert schedule.alpha(column(1)).item() == pytest.approx(expected, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize(
    ("schedule", "alpha", "slope"),
    [
        (LogLinear(eps=0), 0.7, -1.0),
        (LogLinear(eps=1e-3), 0.7003, -0.999),
        (Cosine(eps=1e-3), 0.5464294276, -1.3985257473),
        (Cosine(eps=0), 0.5460095003, -1.3995897753),
        (Polynomial(2, eps=0), 0.91, -0.6),
        (Polynomial(1, eps=1e-3), 0.7003, -0.999),
    ],
)
def test_values_at_three_tenths(schedule: Schedule, alpha: float, slope: float):
    assert schedule.alpha(column(0.3)).item() == pytest.approx(alpha, abs=5e-11)
    assert schedule.slope(column(0.3)).item() == pytest.approx(slope, abs=5e-11)


@pytest.mark.parametrize("eps", [0, 1e-3, 0.2])
def test_the_masked_loss_weight_of_log_linear_is_one_over_t(eps: float):
    schedule, t = LogLinear(eps), grid(0.01, 1)
    weight = -schedule.slope(t) / (1 - schedule.alpha(t))
    torch.testing.assert_close(weight, 1 / t, rtol=1e-12, atol=0)


@every_schedule
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_and_dtype_are_those_of_the_argument(schedule: Schedule, dtype: torch.dtype):
    t = torch.full((2, 3), 0.5, dtype=dtype)
    for value in (schedule.alpha(t), schedule.slope(t), schedule.inverse(t)):
        assert value.shape == t.shape
        assert value.dtype == dtype


@pytest.mark.parametrize("schedule", [LogLinear, Cosine, Polynomial])
@pytest.mark.parametrize("eps", [-1e-9, 1.0, 2.0, math.nan])
def test_a_bad_eps_is_refused_with_its_range(schedule: type, eps: float):
    with pytest.raises(ValueError, match="eps is .*at least 0 .* below 1"):
        schedule(eps=eps)


@pytest.mark.parametrize("exponent", [0, -1, math.nan, math.inf])
def test_a_bad_exponent_is_refused_with_its_range(exponent: float):
    with pytest.raises(ValueError, match="exponent is .*above 0"):
        Polynomial(exponent)


@pytest.mark.parametrize("num_steps", [1, 3, 1000])
@pytest.mark.parametrize("inner", [LogLinear(1e-3), Cosine(1e-3), Polynomial(0.5)])
def test_stepwise_goes_from_text_to_noise_in_even_steps(inner: Schedule, num_steps: int):
    schedule = Stepwise(inner, num_steps)
    middle = (torch.arange(num_steps, dtype=torch.float64) + 0.5) / num_steps
    times = torch.arange(num_steps + 1, dtype=torch.float64) / num_steps
    alpha = schedule.alpha(times)
    assert alpha[0] == 1
    assert alpha[-1] == 0
    torch.testing.assert_close(alpha[1:-1], inner.alpha(times[1:-1]))
    torch.testing.assert_close(schedule.alpha(middle), alpha[1:])
    torch.testing.assert_close(schedule.slope(middle) / num_steps, alpha.diff())
    torch.testing.assert_close(schedule.inverse(alpha), times)


@pytest.mark.parametrize("num_steps", [0, -1])
def test_stepwise_without_steps_is_refused(num_steps: int):
    with pytest.raises(ValueError, match=f"num_steps is {num_steps}; it must be at least 1"):
        Stepwise(LogLinear(), num_steps)
