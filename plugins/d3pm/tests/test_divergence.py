"""The closed forms are the KL of the posteriors: at every level, at both ends, in float32."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from platform_core.objective import Nelbo
from platform_core.process import LOG_ZERO, Absorbing, Interpolating, Uniform
from platform_core.testing.toy import TinyNetwork, double, model
from platform_d3pm.objective import (
    absorbing_divergence,
    divergence,
    posterior_divergence,
    uniform_divergence,
)
from platform_d3pm.process import AbsorbingD3pm, UniformD3pm

KINDS = {"absorbing": AbsorbingD3pm, "uniform": UniformD3pm}

both = pytest.mark.parametrize("states", ["absorbing", "uniform"])
levels = st.tuples(st.floats(0, 0.999), st.floats(1e-3, 1)).map(sorted)


def case(process: Interpolating, *, seed: int, rows: int = 12, scale: float = 2.0):
    """log x_theta over all states, x_t and x_0; under uniform noise half were left alone."""
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(rows, process.num_states, generator=generator).double()
    x0 = torch.randint(process.vocab_size, (rows,), generator=generator)
    x_t = process.sample_prior((rows,), generator)
    if isinstance(process, Uniform):
        x_t[::2] = x0[::2]
    return logits.log_softmax(-1), x_t, x0


def at(rows: int, alpha_s: float, alpha_t: float) -> tuple[Tensor, Tensor]:
    return double(alpha_s).expand(rows), double(alpha_t).expand(rows)


@both
@given(num_tokens=st.integers(2, 8), levels=levels, seed=st.integers(0, 1000))
def test_closed_forms_are_the_brute_force_divergence(states, num_tokens, levels, seed):
    process = KINDS[states](num_tokens)
    columns = case(process, seed=seed)
    steps = at(12, levels[1], levels[0])
    closed = divergence(process)(*columns, *steps)
    brute = posterior_divergence(*columns, *steps, process=process)
    torch.testing.assert_close(closed, brute, rtol=1e-9, atol=1e-12)
    assert (closed > -1e-14).all()


@both
@pytest.mark.parametrize(
    ("alpha_s", "alpha_t"), [(1.0, 0.0), (1.0, 0.4), (0.3, 0.0), (1.0, 1 - 1e-9), (1e-3, 1e-4)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_ends_have_finite_values_and_gradients(states, alpha_s, alpha_t, dtype):
    process = KINDS[states](5)
    log_x0, x_t, x0 = case(process, seed=1)
    steps = at(12, alpha_s, alpha_t)
    leaf = log_x0.to(dtype).requires_grad_()
    closed = divergence(process)(leaf, x_t, x0, *steps)
    (gradient,) = torch.autograd.grad(closed.sum(), leaf)
    assert gradient.isfinite().all()
    brute = posterior_divergence(log_x0, x_t, x0, *steps, process=process)
    within = 1e-4 if dtype == torch.float32 else 1e-9
    torch.testing.assert_close(closed.detach(), brute, rtol=within, atol=within)


@both
@given(levels=levels, seed=st.integers(0, 1000))
def test_gradients_are_those_of_the_brute_force_divergence(states, levels, seed):
    process = KINDS[states](4)
    log_x0, x_t, x0 = case(process, seed=seed)
    gradients = []
    for form in (divergence(process), partial(posterior_divergence, process=process)):
        leaf = log_x0.clone().requires_grad_()
        nats = form(leaf.log_softmax(-1), x_t, x0, *at(12, levels[1], levels[0]))
        gradients.append(torch.autograd.grad(nats.sum(), leaf)[0])
    torch.testing.assert_close(*gradients, rtol=1e-7, atol=1e-9)


@both
def test_the_divergence_is_zero_at_the_truth(states: str):
    process = KINDS[states](4)
    _, x_t, x0 = case(process, seed=0)
    truth = torch.full((12, process.num_states), LOG_ZERO).double().scatter(1, x0[:, None], 0.0)
    nats = divergence(process)(truth, x_t, x0, *at(12, 0.7, 0.4))
    assert nats.abs().max() < 1e-14


def test_tokens_that_masks_have_not_reached_cost_nothing():
    process = AbsorbingD3pm(4)
    log_x0, _, x0 = case(process, seed=0)
    assert (divergence(process)(log_x0, x0, x0, *at(12, 0.7, 0.4)) == 0).all()


def published(alpha_s: float, alpha_t: float, clean: float, mask: float) -> float:
    """DUO's code, with alpha_s where it has t - dt."""
    share = (alpha_s - alpha_t) / (1 - alpha_t)
    at_t = math.log(alpha_t * mask / (1 - alpha_t) + 1)
    wrong = math.log((1 - alpha_s) * mask / (1 - alpha_s) + 1)
    return share * (at_t - math.log(clean)) + (1 - share) * (at_t - wrong)


@pytest.mark.parametrize(
    ("alpha_s", "alpha_t", "clean", "mask", "right", "wrong"),
    [
        (0.7, 0.4, 0.5, 0.1, 0.3062518459, 0.3634570215),
        (0.9, 0.899, 0.3, 0.05, 0.0121793939, 0.3317570100),
    ],
)
def test_published_code_is_wrong_about_alpha_s(alpha_s, alpha_t, clean, mask, right, wrong):
    rest = 1 - clean - mask
    log_x0 = double(clean, rest, mask).log()[None]
    columns = log_x0, torch.tensor([2]), torch.tensor([0]), double(alpha_s), double(alpha_t)
    assert absorbing_divergence(*columns, mask_id=2).item() == pytest.approx(right, abs=5e-11)
    brute = posterior_divergence(*columns, process=Absorbing(2))
    assert brute.item() == pytest.approx(right, abs=5e-11)
    share = (alpha_s - alpha_t) / (1 - alpha_t)
    t_minus = 1 - alpha_s
    at_t = math.log(alpha_t * mask / (1 - alpha_t) + 1)
    erring = math.log(t_minus * mask / t_minus + 1)
    assert share * (at_t - math.log(clean)) + (1 - share) * (at_t - erring) == pytest.approx(
        wrong, abs=5e-11
    )


def test_the_published_form_is_negative_for_small_steps_from_noise():
    assert published(0.101, 0.1, 0.5, 0.3) < 0
    assert published(0.5, 0.4, 0.5, 0.3) == pytest.approx(
        absorbing_divergence(
            double(0.5, 0.2, 0.3).log()[None],
            torch.tensor([2]),
            torch.tensor([0]),
            double(0.5),
            double(0.4),
            mask_id=2,
        ).item()
    ), "at alpha_s = 1/2 the error does not show"


@given(levels=st.tuples(st.floats(0, 0.999), st.floats(1e-3, 1)).map(sorted))
def test_without_mass_on_the_mask_it_is_mdlms_cross_entropy(levels):
    alpha_t, alpha_s = levels
    log_x0 = torch.cat((double(0.2, 0.5, 0.3).log(), double(LOG_ZERO)))[None]
    nats = absorbing_divergence(
        log_x0, torch.tensor([3]), torch.tensor([1]), double(alpha_s), double(alpha_t), mask_id=3
    )
    expected = (alpha_s - alpha_t) / (1 - alpha_t) * math.log(2)
    assert nats.item() == pytest.approx(expected, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [(10, (0.913595, 1.993433, 1.591576)), (1000, (0.841505, 1.743319, 1.334460))],
)
def test_the_printed_values_of_uniform_noise(steps: int, expected: tuple[float, ...]):
    log_x0 = double(0.2, 0.5, 0.3).log().expand(3, 3)
    levels = at(3, 0.4 + 1 / steps, 0.4)
    nats = uniform_divergence(log_x0, torch.arange(3), torch.zeros(3).long(), *levels)
    assert (steps * nats).tolist() == pytest.approx(expected, abs=6e-7)


@both
@given(alpha=st.floats(0.01, 0.98), seed=st.integers(0, 1000))
def test_of_many_steps_it_is_the_generic_bound(states, alpha, seed):
    """T KL -> f_t, with an error of first order in 1 / T."""
    process = KINDS[states](5)
    log_x0, x_t, x0 = case(process, seed=seed, scale=1.0)
    generic = Nelbo(model(process, TinyNetwork(process.num_states)))
    f = generic.row_loss(log_x0, x_t, x0, double(alpha).expand(12), double(-1).expand(12))

    def error(steps: float) -> Tensor:
        return steps * divergence(process)(log_x0, x_t, x0, *at(12, alpha + 1 / steps, alpha)) - f

    torch.testing.assert_close(f + error(1e6), f, rtol=1e-3, atol=1e-6)
    large = error(1e3).abs() > 1e-5
    ratio = error(1e3)[large] / error(1e4)[large]
    torch.testing.assert_close(ratio, torch.full_like(ratio, 10), rtol=0.3, atol=0)


def test_the_limit_of_masks_has_the_printed_form():
    """-alpha' / (1 - alpha) { A - log X - M / ((1 - alpha) (1 + alpha M / (1 - alpha))) }."""
    alpha, clean, mask = 0.4, 0.5, 0.2
    log_x0 = double(clean, 0.3, mask).log()[None]
    columns = log_x0, torch.tensor([2]), torch.tensor([0])
    limit = (
        math.log1p(alpha * mask / (1 - alpha))
        - math.log(clean)
        - mask / ((1 - alpha) * (1 + alpha * mask / (1 - alpha)))
    ) / (1 - alpha)
    nats = absorbing_divergence(*columns, double(alpha + 1e-6), double(alpha), mask_id=2)
    assert 1e6 * nats.item() == pytest.approx(limit, rel=1e-5)


@both
@pytest.mark.parametrize("alpha", [1e-3, 0.5, 0.998])
def test_float32_rows_of_a_thousand_steps_keep_their_digits(states: str, alpha: float):
    process = KINDS[states](50_257)
    log_x0, x_t, x0 = case(process, seed=0)
    steps = at(12, alpha + 1e-3, alpha)
    exact = divergence(process)(log_x0, x_t, x0, *steps)
    brute = posterior_divergence(log_x0, x_t, x0, *steps, process=process)
    torch.testing.assert_close(exact, brute, rtol=1e-7, atol=1e-11)
    single = divergence(process)(log_x0.float(), x_t, x0, *steps)
    torch.testing.assert_close(1e3 * single, 1e3 * exact, rtol=1e-4, atol=1e-5)


class Half(Interpolating):
    """Noise that is a mask or the first token, with equal chance: neither of the two kinds."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__(vocab_size, num_states=vocab_size + 1, time_conditioned=True)

    def prior(self, tokens: Tensor) -> Tensor:
        return ((tokens == 0) | (tokens == self.vocab_size)).double() / 2

    def sample_prior(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return self.vocab_size * torch.randint(2, shape, generator=generator)


def test_any_other_noise_has_the_definition():
    process = Half(4)
    columns = case(process, seed=0)
    nats = divergence(process)(*columns, *at(12, 0.7, 0.4))
    brute = posterior_divergence(*columns, *at(12, 0.7, 0.4), process=process)
    assert torch.equal(nats, brute)
    assert (nats > 0).all()
