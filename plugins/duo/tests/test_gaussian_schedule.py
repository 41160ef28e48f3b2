"""The schedule gaussian: curve, slope and inverse agree, its window suits every vocabulary."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from platform_duo import gaussian
from platform_duo.schedule import Gaussian

SCHEDULES = [
    Gaussian(num_states, *window, operator=operator)
    for num_states, window in [(2, ()), (72, ()), (72, (-4, 4)), (50257, (-3.55, -1.85))]
    for operator in ("quadrature", "series", "poly9")
    if (window, operator) != ((-4, 4), "poly9")
]
every_schedule = pytest.mark.parametrize(
    "schedule",
    SCHEDULES,
    ids=lambda s: f"{s.operator.num_states}-{type(s.operator).__name__}-{s.gamma_min:.2f}",
)
any_schedule = st.builds(Gaussian, st.integers(2, 10**6), st.floats(-4.5, -2.5), st.floats(-2.4, 5))


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def grid(start: float, end: float, number: int = 201) -> torch.Tensor:
    return torch.linspace(start, end, number, dtype=torch.float64)[:, None]


@every_schedule
def test_slope_is_the_derivative_of_alpha(schedule: Gaussian):
    t = grid(0, 1).requires_grad_()
    (derivative,) = torch.autograd.grad(schedule.alpha(t).sum(), t)
    torch.testing.assert_close(schedule.slope(t), derivative, rtol=1e-9, atol=1e-11)
    t, h = grid(0.01, 0.99), 1e-4
    difference = (schedule.alpha(t + h) - schedule.alpha(t - h)) / (2 * h)
    torch.testing.assert_close(schedule.slope(t), difference, rtol=1e-5, atol=1e-7)


@every_schedule
def test_alpha_falls_strictly_and_the_inverse_undoes_it(schedule: Gaussian):
    t = grid(0, 1)
    alpha = schedule.alpha(t)
    assert (alpha.diff(dim=0) < 0).all()
    assert (schedule.slope(t) < 0).all()
    torch.testing.assert_close(schedule.inverse(alpha), t, rtol=0, atol=1e-8)
    torch.testing.assert_close(schedule.alpha(schedule.inverse(alpha)), alpha, rtol=0, atol=1e-12)
    assert schedule.inverse(column(1, 0)).flatten().tolist() == pytest.approx([0, 1], abs=1e-12)


@pytest.mark.slow
@given(any_schedule, st.floats(0, 1))
def test_alpha_of_inverse_is_alpha(schedule: Gaussian, fraction: float):
    first, last = schedule.alpha(column(0, 1)).flatten().tolist()
    alpha = column(last + fraction * (first - last))
    torch.testing.assert_close(schedule.alpha(schedule.inverse(alpha)), alpha, rtol=0, atol=1e-12)


@pytest.mark.slow
@given(st.integers(2, 10**6))
def test_by_default_alpha_goes_from_95_to_5_percent(num_states: int):
    alpha = Gaussian(num_states).alpha(column(0, 1)).flatten()
    assert alpha.tolist() == pytest.approx([0.95, 0.05], abs=1e-12)


def test_one_end_may_be_given_alone():
    schedule = Gaussian(50257, gamma_max=-1.5)
    assert schedule.gamma_min == pytest.approx(-3.5650261007, abs=1e-10)
    assert schedule.alpha(column(0)).item() == pytest.approx(0.95, abs=1e-12)
    assert schedule.gamma(column(1)).item() == -1.5


def test_gamma_runs_evenly_and_mu_follows_it():
    schedule = Gaussian(100, -4, 2)
    assert schedule.gamma(column(0, 0.5, 1)).flatten().tolist() == [-4, -1, 2]
    torch.testing.assert_close(schedule.mu(column(0.5)), column(0.5).exp())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@every_schedule
def test_shape_and_dtype_are_those_of_the_argument(schedule: Gaussian, dtype: torch.dtype):
    t = torch.full((2, 3), 0.5, dtype=dtype)
    for value in (schedule.alpha(t), schedule.slope(t), schedule.inverse(t)):
        assert value.shape == t.shape
        assert value.dtype == dtype
    exact = schedule.alpha(t.double()).to(dtype)
    assert (schedule.alpha(t) == exact).all(), "computed in float64 all the same"


@pytest.mark.parametrize("operator", ["quadrature", "series", "poly9"])
def test_it_is_made_for_checking_on_the_meta_device(operator: str):
    with torch.device("meta"):
        schedule = Gaussian(50257, operator=operator)
    assert schedule.alpha(column(0)).item() == pytest.approx(0.95, abs=3e-5)


@pytest.mark.parametrize(
    "ends", [(0, 0), (1, -1), (-6, 1), (-3, 60), (float("nan"), 1), (-3, float("inf"))]
)
def test_a_bad_window_is_refused_with_one_that_works(ends: tuple[float, float]):
    with pytest.raises(ValueError, match=r"gamma_min is .* and gamma_max .* 0\.95 at -3\.565 "):
        Gaussian(50257, *ends)


@pytest.mark.parametrize("num_states", [2, 50257, 10**6])
def test_the_widest_window_still_has_some_of_both(num_states: int):
    lowest, highest = gaussian.window(num_states, 1 - 1e-14, 1e-14)
    alpha = Gaussian(num_states, lowest, highest).alpha(grid(0, 1))
    assert 0 < alpha.min() < 2e-14
    assert 1 - 2e-14 < alpha.max() < 1


def test_one_state_is_refused():
    with pytest.raises(ValueError, match="num_states is 1; an argmax needs at least 2"):
        Gaussian(1)


@pytest.mark.parametrize(
    ("num_states", "published"), [(50257, (-3.55, -1.85)), (30522, (-3.5, -1.75))]
)
def test_the_published_windows_are_close_to_the_default(num_states: int, published):
    schedule = Gaussian(num_states)
    assert (schedule.gamma_min, schedule.gamma_max) == pytest.approx(published, abs=0.03)
