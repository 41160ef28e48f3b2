"""The geometric schedule: curve, slope and inverse agree, with all their digits."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from platform_sedd.schedule import Geometric

geometrics = st.builds(Geometric, st.floats(1e-6, 1e-2), st.floats(1, 30))


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


@given(geometrics, st.floats(0, 1))
def test_slope_is_the_derivative_of_alpha(schedule: Geometric, time: float):
    t = column(time).requires_grad_()
    (derivative,) = torch.autograd.grad(schedule.alpha(t).sum(), t)
    torch.testing.assert_close(schedule.slope(t).detach(), derivative, rtol=1e-12, atol=0)


@given(geometrics, st.floats(0, 1))
def test_inverse_of_alpha_is_the_time(schedule: Geometric, time: float):
    inverse = schedule.inverse(schedule.alpha(column(time)))
    torch.testing.assert_close(inverse, column(time), rtol=0, atol=1e-10)


@given(geometrics)
def test_the_ends_are_the_two_noise_levels(schedule: Geometric):
    sigma = -schedule.alpha(column(0, 1)).log()
    expected = column(schedule.sigma_min, schedule.sigma_max)
    torch.testing.assert_close(sigma, expected, rtol=1e-9, atol=0)
    assert schedule.inverse(column(1, 0)).flatten().tolist() == [0, 1], "levels beyond the ends"


def test_values_at_three_tenths():
    schedule, t = Geometric(1e-4, 20), column(0.3)
    assert -schedule.alpha(t).log().item() == pytest.approx(0.0038932205, abs=5e-11)
    assert schedule.alpha(t).item() == pytest.approx(0.9961143483, abs=5e-11)
    assert schedule.slope(t).item() == pytest.approx(-0.0473362821, abs=5e-11)


def test_noise_grows_by_the_same_factor_in_equal_times():
    sigma = -Geometric().alpha(column(*torch.linspace(0, 1, 11).tolist())).log()
    ratio = sigma[1:] / sigma[:-1]
    assert ratio.flatten().tolist() == pytest.approx([(20 / 1e-4) ** 0.1] * 10, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_and_dtype_are_those_of_the_argument(dtype: torch.dtype):
    t = torch.full((2, 3), 0.5, dtype=dtype)
    for value in (Geometric().alpha(t), Geometric().slope(t), Geometric().inverse(t)):
        assert value.shape == t.shape
        assert value.dtype == dtype


@pytest.mark.parametrize(
    "ends", [(0, 20), (-1e-4, 20), (2, 1), (1, 1), (1, math.inf), (1, 701), (math.nan, 2)]
)
def test_bad_ends_are_refused_with_values_that_work(ends: tuple[float, float]):
    with pytest.raises(ValueError, match="sigma_min is .* 0 < sigma_min < sigma_max.*1e-4 and 20"):
        Geometric(*ends)
