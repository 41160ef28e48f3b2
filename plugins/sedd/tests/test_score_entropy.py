"""The closed form under masks is the generic bound and MDLM's weight; scores' bounds are tight."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from platform_core import rows
from platform_core.draws import Draws
from platform_core.objective import Nelbo, ShortestNelbo
from platform_core.process import Absorbing
from platform_core.schedule import LogLinear
from platform_core.testing.allocations import LargestTensor
from platform_core.testing.toy import (
    ExactScore,
    TinyNetwork,
    integrated_bound,
    model,
    one_token_law,
    random_law,
    two_token_law,
)
from platform_core.types import Batch
from platform_sedd.objective import ScoreEntropy
from platform_sedd.parameterization import Score
from platform_sedd.process import AbsorbingSedd, UniformSedd

KINDS = {"absorbing": AbsorbingSedd, "uniform": UniformSedd}

both = pytest.mark.parametrize("states", ["absorbing", "uniform"])
TIGHT = {"rtol": 1e-11, "atol": 1e-12}


def exact(law, objective=Nelbo, states="absorbing"):
    process = KINDS[states](law.num_tokens)
    return objective(model(process, ExactScore(law, process), parameterization=Score()))


def tiny(objective, num_tokens: int, states="absorbing"):
    torch.manual_seed(0)
    process = KINDS[states](num_tokens)
    network = TinyNetwork(process.num_states)
    return objective(model(process, network, LogLinear(), Score()))


@both
@pytest.mark.parametrize("law", [one_token_law(), two_token_law(), random_law(6, 2, seed=5)])
def test_the_bound_of_exact_scores_is_the_negative_log_likelihood(states, law):
    x0 = law.sequences()
    bound = integrated_bound(exact(law, states=states), x0)
    torch.testing.assert_close(bound, -law.log_prob(x0), **TIGHT)


def test_the_closed_form_is_tight_too():
    law = two_token_law()
    bound = integrated_bound(exact(law, ScoreEntropy), law.sequences())
    torch.testing.assert_close(bound, -law.log_prob(law.sequences()), **TIGHT)


@both
@pytest.mark.parametrize("factor", [0.5, 1.5])
def test_a_score_that_is_not_of_a_law_pays_for_it(states, factor, monkeypatch):
    law = two_token_law()
    objective = exact(law, states=states)
    network, encode = objective.model.backbone, objective.model.backbone.encode
    monkeypatch.setattr(network, "encode", lambda *a: encode(*a) + math.log(factor))
    x0 = law.sequences()
    excess = integrated_bound(objective, x0) + law.log_prob(x0)
    assert (law.log_prob(x0).exp() * excess).sum() > 0.01
    if states == "absorbing":
        rate = factor - 1 - math.log(factor)
        torch.testing.assert_close(excess, torch.full_like(excess, 2 * rate), **TIGHT)


@given(
    num_tokens=st.integers(2, 40),
    alpha=st.floats(1e-6, 1 - 1e-6),
    slope=st.floats(-5, -1e-3),
    seed=st.integers(0, 1000),
)
def test_the_closed_form_is_the_generic_bound(num_tokens, alpha, slope, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(12, num_tokens + 1, generator=generator, dtype=torch.float64)
    x0 = torch.randint(num_tokens, (12,), generator=generator)
    x_t = x0.clone()
    x_t[::2] = num_tokens
    levels = (torch.full((12,), value, dtype=torch.float64) for value in (alpha, slope))
    columns = (x_t, x0, *levels)
    closed = tiny(ScoreEntropy, num_tokens).row_loss(logits, *columns)
    generic = tiny(Nelbo, num_tokens).row_loss(logits, *columns)
    torch.testing.assert_close(closed, generic, rtol=1e-8, atol=1e-9)
    assert (closed[::2] >= 0).all()
    assert (closed[1::2] == 0).all()


def test_weights_that_sum_to_one_are_mdlms_cross_entropy():
    """alpha = .4, x_theta[x] = .5: (1 / .6) log 2."""
    log_x0 = torch.tensor([0.2, 0.5, 0.3, 1.0], dtype=torch.float64).log()[None]
    alpha, slope = (torch.tensor([value], dtype=torch.float64) for value in (0.4, -1))
    columns = torch.tensor([3]), torch.tensor([1]), alpha, slope
    for objective in (ScoreEntropy, Nelbo):
        f = tiny(objective, 3).row_loss(log_x0 + math.log(3), *columns)
        assert f.item() == pytest.approx(1.1552453009, abs=5e-11)


def test_the_published_form_is_the_same():
    """sigma' ( sum s - k log s[x_0] + k (log k - 1) ), k = alpha / (1 - alpha)."""
    logits = torch.randn(1, 6, generator=torch.Generator().manual_seed(0)).double()
    alpha, slope = (torch.tensor([value], dtype=torch.float64) for value in (0.3, -1.7))
    x_t, x0 = torch.tensor([5]), torch.tensor([2])
    objective = tiny(ScoreEntropy, 5)
    score = Score().log_score(logits, x_t, alpha, objective.denoiser.process)
    k = 0.3 / 0.7
    published = 1.7 / 0.3 * (score[0, :5].exp().sum() - k * score[0, 2] + k * (math.log(k) - 1))
    f = objective.row_loss(logits, x_t, x0, alpha, slope)
    assert f.item() == pytest.approx(published.item(), rel=1e-12)


@pytest.mark.parametrize("alpha", [1e-3, 0.5, 0.999])
def test_float32_rows_keep_their_digits(alpha: float):
    logits = 3 * torch.randn(12, 50_258, generator=torch.Generator().manual_seed(0))
    x_t, x0 = torch.full((12,), 50_257), torch.arange(12)
    levels = (torch.full((12,), value, dtype=torch.float64) for value in (alpha, -1))
    columns = (x_t, x0, *levels)
    objective = tiny(ScoreEntropy, 50_257)
    single, double = (objective.row_loss(z, *columns) for z in (logits, logits.double()))
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("num_tokens", [3, 5000])
def test_gradients_are_those_of_the_generic_bound(num_tokens: int):
    logits = torch.randn(6, num_tokens + 1, generator=torch.Generator().manual_seed(0)).double()
    x_t, x0 = torch.full((6,), num_tokens), torch.arange(6) % num_tokens
    levels = (torch.full((6,), value, dtype=torch.float64) for value in (0.4, -1))
    columns, gradients = (x_t, x0, *levels), []
    for objective in (ScoreEntropy, Nelbo):
        leaf = logits.clone().requires_grad_()
        loss = tiny(objective, num_tokens).row_loss(leaf, *columns).sum()
        gradients.append(torch.autograd.grad(loss, leaf)[0])
    torch.testing.assert_close(*gradients, rtol=1e-7, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    "objective",
    [
        partial(tiny, ScoreEntropy),
        partial(tiny, Nelbo),
        partial(tiny, Nelbo, states="uniform"),
    ],
    ids=["closed form", "generic, masks", "generic, uniform"],
)
def test_a_training_step_makes_no_tensor_of_positions_by_states(objective, monkeypatch):
    built = objective(1007)
    x0 = torch.randint(1007, (16, 32), generator=torch.Generator().manual_seed(0))
    states = built.denoiser.process.num_states
    monkeypatch.setattr(rows, "CHUNK_ELEMENTS", 6 * states)
    with LargestTensor() as made:
        draws = Draws.derive("test", step=0, first=0, total=16)
        built(Batch(x0, torch.ones_like(x0, dtype=torch.bool)), draws).total.backward()
    assert made.elements < x0.numel() * states / 50


def test_the_requirements_are_masks_and_a_score():
    assert ScoreEntropy.requires == {"process": Absorbing, "parameterization": Score}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_nelbo_takes_the_closed_form_under_masks_and_is_the_definition(dtype: torch.dtype):
    within = {torch.float64: 1e-9, torch.float32: 1e-5, torch.bfloat16: 1e-2}[dtype]
    logits = torch.randn(12, 41, generator=torch.Generator().manual_seed(0)).to(dtype)
    x0 = torch.randint(40, (12,), generator=torch.Generator().manual_seed(1))
    x_t = torch.where(torch.arange(12) % 2 == 0, 40, x0)
    levels = (torch.full((12,), value, dtype=torch.float64) for value in (0.3, -1.7))
    columns, found = (x_t, x0, *levels), []
    for objective in (ShortestNelbo, Nelbo, ScoreEntropy):
        leaf = logits.clone().requires_grad_()
        nats = tiny(objective, 40).row_loss(leaf, *columns)
        (slope,) = torch.autograd.grad(nats.sum(), leaf)
        found.append((nats.detach(), slope))
    for nats, slope in found[1:]:
        torch.testing.assert_close(found[0][0], nats, rtol=within, atol=within)
        torch.testing.assert_close(found[0][1], slope, rtol=within, atol=within)
    assert torch.equal(found[0][0], found[2][0])


def test_nelbo_is_the_definition_under_uniform_noise():
    logits = torch.randn(4, 9, generator=torch.Generator().manual_seed(0)).double()
    tokens = torch.arange(4)
    levels = (torch.full((4,), value, dtype=torch.float64) for value in (0.3, -1.7))
    columns = (logits, tokens, tokens + 1, *levels)
    shortest, generic = (tiny(kind, 9, "uniform") for kind in (ShortestNelbo, Nelbo))
    assert torch.equal(shortest.row_loss(*columns), generic.row_loss(*columns))
