"""Soft tokens: both ways of drawing them have the operator's law, and the published code's values.

The published code takes the clean token for the noisy one wherever it is among the k largest. In
its 36 golden tokens that is the argmax each time; what it costs is measured here.
"""

import itertools
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from platform_core.testing.allocations import LargestTensor
from platform_core.testing.golden import Golden
from platform_core.testing.toy import chi_square, double
from platform_core.types import TopTokens
from platform_duo import gaussian
from platform_duo.relaxation import (
    DenseNoise,
    LargestNoise,
    Relaxation,
    SoftTokens,
    Top,
    clean_if_among_the_largest,
    largest_normals,
    log_mean_exp_below,
    noisy_one_hot,
    of_the_largest,
    other_tokens,
    soften,
)

GOLDEN = Golden(Path(__file__).parent / "golden")
tensors, tolerance = GOLDEN.tensors, GOLDEN.tolerance


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(
    relaxation: Relaxation, x0: Tensor, gamma: float, tau: float = 1e-3, seed: int = 0
) -> SoftTokens:
    gammas = torch.full((len(x0), 1), gamma, dtype=torch.float64)
    return relaxation.draw(x0, gammas, tau, generator(seed))


def standard_error(values: Tensor) -> float:
    return float(values.double().std() / values.numel() ** 0.5)


def test_the_mean_below_a_ceiling_is_the_reference_s():
    case, within = (
        tensors("k.log_mean_exp_trunc_normal"),
        tolerance("k.log_mean_exp_trunc_normal"),
    )
    value = log_mean_exp_below(case["c"], case["sigma"])
    torch.testing.assert_close(value, case["output/value"], **within)


@pytest.mark.parametrize(("ceiling", "scale"), [(0.5, 1.0), (-1.0, 0.7), (3.0, 2.5), (2.0, 0.1)])
def test_the_mean_below_a_ceiling_is_that_of_draws(ceiling: float, scale: float):
    normal = scale * torch.randn(400_000, generator=generator(), dtype=torch.float64)
    values = normal[normal < ceiling].exp()
    mean = log_mean_exp_below(double(ceiling), double(scale)).exp().item()
    assert abs(mean - values.mean().item()) < 4 * standard_error(values)


@given(st.floats(-5, 6), st.floats(1e-3, 1e12))
def test_the_mean_below_a_ceiling_is_below_it_at_every_temperature(bound: float, scale: float):
    """In the form that the reference uses nothing is left of it at 1e10."""
    ceiling = bound * scale
    mean = log_mean_exp_below(double(ceiling), double(scale)).item()
    assert math.isfinite(mean)
    assert mean <= ceiling + 1e-9 * max(1, abs(ceiling))


def test_the_top_k_path_is_the_reference_s():
    """From its own draws; `random_ints` are its tokens before those from x_0 on are moved by 1."""
    case, within = tensors("j.topk"), tolerance("j.topk")
    x0, alpha, sigma = case["x0"], case["alpha"].double()[:, None], case["sigma"].double()[:, None]
    values = sigma[..., None] * largest_normals(case["u"], 18)
    torch.testing.assert_close(values, case["output/order_statistics"], **within)
    ids = case["random_ints"] + (case["random_ints"] >= x0[..., None])
    top = Top(ids, values, alpha + sigma * case["e"].double())
    torch.testing.assert_close(top.clean, case["output/extra"], **within)
    soft = soften(x0, top, sigma, 1 / case["inv_tau"].item(), num_states=19)
    assert soft.ids.equal(case["output/indices"])
    torch.testing.assert_close(soft.weights, case["output/weights"], **within)
    assert of_the_largest(x0, top).equal(case["output/xt_corrected"])
    assert clean_if_among_the_largest(x0, top).equal(case["output/xt_reference"])


def test_the_dense_path_is_the_reference_s():
    case = tensors("j.gaussian")
    tau = 1 / case["inv_tau"].item()
    noisy = noisy_one_hot(case["x0"], case["gamma"].double()[:, None], case["epsilon"])
    within = {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(noisy.float(), case["output/x_gaussian"], **within)
    soft = (noisy / tau).softmax(-1).float()
    torch.testing.assert_close(soft, case["output/net_input_softmax"], rtol=1e-4, atol=1e-5)
    assert noisy.argmax(-1).equal(case["output/xt"])


def every_number(relaxation: Relaxation) -> SoftTokens:
    """100,000 draws at K = 200, gamma -2.5 and tau .01, where mistakes of 1e-3 would be seen."""
    x0 = torch.randint(200, (100, 1000), generator=generator(3))
    return drawn(relaxation, x0, -2.5, tau=0.01, seed=4), x0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("relaxation", "on_clean", "largest"),
    [
        (DenseNoise(200), 0.7568, 0.9748),
        (LargestNoise(200, 2), 0.7539, 0.9711),
        (LargestNoise(200, 5), 0.7564, 0.9747),
    ],
    ids=["dense", "2", "5"],
)
def test_the_paths_agree_in_what_they_say_of_the_clean_token(relaxation, on_clean, largest):
    """P(x_t = x_0) to three standard errors, and the printed mean weights to a 2e-3."""
    (soft, hard), x0 = every_number(relaxation)
    p = gaussian.hit_probability(gaussian.signal_to_noise(double(-2.5)), 200).item()
    hits = (hard == x0).double()
    assert p == pytest.approx(0.7569, abs=5e-5)
    assert abs(hits.mean().item() - p) < 3 * standard_error(hits)
    if isinstance(soft, TopTokens):
        clean = (soft.weights * (soft.ids == x0[..., None])).sum(-1)
        weights = soft.weights
    else:
        clean, weights = soft.gather(-1, x0[..., None]), soft
    assert clean.double().mean().item() == pytest.approx(on_clean, abs=3e-3)
    assert weights.max(-1).values.double().mean().item() == pytest.approx(largest, abs=1e-3)


@pytest.mark.parametrize("top_k", [2, 3, 5])
@pytest.mark.parametrize(("gamma", "clean"), [(-3, 0.5963), (-2.5, 0.2380), (-1.85, 0.0493)])
def test_the_noisy_token_is_clean_as_often_as_alpha_says(gamma: float, clean: float, top_k: int):
    x0 = torch.randint(50257, (20, 2000), generator=generator(1))
    hits = (drawn(LargestNoise(50257, top_k), x0, gamma).hard == x0).double()
    p = gaussian.hit_probability(gaussian.signal_to_noise(double(gamma)), 50257).item()
    assert p == pytest.approx(clean, abs=6e-5)
    assert abs(hits.mean().item() - p) < 3.5 * standard_error(hits)


@pytest.mark.parametrize(
    ("gamma", "top_k", "reference"),
    [(-3, 2, 0.6802), (-3, 5, 0.7679), (-2.5, 3, 0.3473), (-1.85, 5, 0.1123)],
)
def test_by_the_reference_s_rule_it_is_clean_too_often(gamma: float, top_k: int, reference: float):
    x0 = torch.randint(50257, (20, 2000), generator=generator(1))
    hits = (drawn(LargestNoise(50257, top_k, "in-top-k"), x0, gamma).hard == x0).double()
    assert abs(hits.mean().item() - reference) < 3.5 * standard_error(hits)
    p = gaussian.hit_probability(gaussian.signal_to_noise(double(gamma)), 50257).item()
    assert hits.mean().item() - p > 10 * standard_error(hits)


@pytest.mark.parametrize(("top_k", "gamma", "mean"), [(2, -3, 0.9990), (2, -2.5, 0.99915)])
def test_almost_all_of_the_softmax_is_in_two_weights(top_k: int, gamma: float, mean: float):
    x0 = torch.randint(50257, (20, 2000), generator=generator(2))
    soft = drawn(LargestNoise(50257, top_k), x0, gamma).soft
    sums = soft.weights.sum(-1)
    assert (sums <= 1 + 1e-11).all()
    assert sums.mean().item() == pytest.approx(mean, abs=3e-4)


@pytest.mark.parametrize("relaxation", [DenseNoise(5), LargestNoise(5, 2), LargestNoise(5, 4)])
def test_every_other_token_is_equally_likely(relaxation: Relaxation):
    x0 = torch.full((4, 5000), 3)
    hard = drawn(relaxation, x0, -1.0).hard
    p = gaussian.hit_probability(gaussian.signal_to_noise(double(-1)), 5).item()
    law = torch.full((5,), (1 - p) / 4, dtype=torch.float64)
    law[3] = p
    assert chi_square(hard, law) > 1e-3


@pytest.mark.parametrize(
    ("num_states", "number", "clean"), [(5, 2, 3), (5, 4, 0), (6, 3, 5), (3, 2, 1)]
)
def test_other_tokens_are_different_and_in_random_order(num_states: int, number: int, clean: int):
    """Every ordered list is equally likely: the reference's sets are, but not its order."""
    x0 = torch.full((60_000,), clean)
    tokens = other_tokens(x0, number, num_states, generator())
    lists = list(itertools.permutations(set(range(num_states)) - {clean}, number))
    code = (tokens * num_states ** torch.arange(number)).sum(-1)
    codes = torch.tensor(lists) @ num_states ** torch.arange(number)
    law = torch.zeros(num_states**number, dtype=torch.float64)
    law[codes] = 1 / len(lists)
    assert chi_square(code, law) > 1e-3


@given(st.integers(3, 10**6), st.integers(2, 8), st.integers(0, 1000))
def test_other_tokens_of_any_vocabulary_are_distinct(num_states: int, number: int, seed: int):
    number = min(number, num_states - 1)
    x0 = torch.randint(num_states, (3, 7), generator=generator(seed))
    tokens = other_tokens(x0, number, num_states, generator(seed + 1))
    assert 0 <= tokens.min() <= tokens.max() < num_states
    ordered = torch.cat((tokens, x0[..., None]), dim=-1).sort(-1).values
    assert (ordered.diff(dim=-1) > 0).all()


def test_the_largest_normals_are_those_of_as_many_draws():
    number, k, rows = 30, 4, 40_000
    uniform = torch.rand(rows, k, generator=generator(), dtype=torch.float64)
    largest = largest_normals(uniform, number)
    assert (largest.diff(dim=-1) < 0).all()
    dense = torch.randn(rows, number, generator=generator(1), dtype=torch.float64)
    dense = dense.topk(k, dim=-1).values
    for place in range(k):
        one, other = largest[:, place], dense[:, place]
        error = math.hypot(standard_error(one), standard_error(other))
        assert abs(one.mean() - other.mean()).item() < 3.5 * error
        assert one.std().item() == pytest.approx(other.std().item(), rel=0.02)


def test_the_last_uniform_numbers_give_finite_weights():
    """0 and the largest number below 1, of which `torch.rand` may give either."""
    ends = double(0.0, 1 - 2.0**-53)
    values = largest_normals(torch.cartesian_prod(ends, ends), 10**6)
    x0 = torch.zeros(4, dtype=torch.long)
    top = Top(torch.tensor([[1, 2]] * 4), values, torch.zeros(4, dtype=torch.float64))
    soft = soften(x0, top, double(0.5), 1e-3, num_states=10**6)
    assert soft.weights.isfinite().all()
    assert (soft.weights.sum(-1) > 0).all()


@pytest.mark.parametrize("num_states", [3, 19])
@pytest.mark.parametrize("tau", [1e-3, 0.1, 3.0])
def test_with_all_coordinates_but_one_drawn_the_weights_are_those_of_the_softmax(num_states, tau):
    """top_k = K - 1: where the clean token is among them one other is unknown, else none is."""
    x0 = torch.randint(num_states, (20, 300), generator=generator())
    scale = double(0.6)
    uniform = torch.rand(20, 300, num_states - 1, generator=generator(1), dtype=torch.float64)
    top = Top(
        other_tokens(x0, num_states - 1, num_states, generator(2)),
        scale * largest_normals(uniform, num_states - 1),
        0.8 + scale * torch.randn(20, 300, generator=generator(3), dtype=torch.float64),
    )
    soft = soften(x0, top, scale, tau, num_states=num_states)
    noisy = torch.zeros(20, 300, num_states, dtype=torch.float64)
    noisy.scatter_(-1, top.ids, top.values).scatter_(-1, x0[..., None], top.clean[..., None])
    dense = (noisy / tau).softmax(-1).gather(-1, soft.ids)
    outside = top.clean <= top.values[..., -1]
    assert outside.any()
    torch.testing.assert_close(soft.weights[outside], dense[outside], rtol=1e-9, atol=1e-12)
    assert (soft.weights.sum(-1) <= 1 + 1e-11).all()


@pytest.mark.parametrize("relaxation", [DenseNoise(50), LargestNoise(50, 2), LargestNoise(50, 6)])
def test_as_the_temperature_falls_the_soft_token_is_the_hard_one(relaxation: Relaxation):
    x0 = torch.randint(50, (8, 40), generator=generator())
    soft, hard = drawn(relaxation, x0, -2.0, tau=1e-12)
    if isinstance(soft, TopTokens):
        assert soft.ids.gather(-1, soft.weights.argmax(-1, keepdim=True)).squeeze(-1).equal(hard)
        top = soft.weights.max(-1).values
    else:
        assert soft.argmax(-1).equal(hard)
        top = soft.max(-1).values
    torch.testing.assert_close(top.double(), torch.ones_like(top.double()), rtol=0, atol=1e-9)


@pytest.mark.parametrize("argmax", ["exact", "in-top-k"])
def test_no_tensor_is_as_wide_as_the_vocabulary(argmax: str):
    x0 = torch.randint(10**6, (4, 8), generator=generator())
    with LargestTensor() as made:
        drawn(LargestNoise(10**6, 3, argmax), x0, -3.0)
    assert made.elements <= x0.numel() * 8


@pytest.mark.parametrize("top_k", [-1, 0, 1, 19, 30])
def test_a_bad_number_of_coordinates_is_refused_with_its_range(top_k: int):
    with pytest.raises(
        ValueError, match=f"top_k is {top_k}; .* at least 2 and below the 19 states"
    ):
        LargestNoise(19, top_k)
