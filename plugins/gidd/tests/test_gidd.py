"""GIDD's curves, noise and weights, written out."""

import math

import pytest
import torch
from torch import Tensor

from platform_core.process import log_one_hot
from platform_core.testing.toy import TinyNetwork, chi_square, model
from platform_gidd.objective import HybridNelbo
from platform_gidd.parameterization import Vocabulary
from platform_gidd.process import Gidd
from platform_gidd.schedule import Hybrid

T = torch.tensor([1e-9, 1e-4, 0.1, 0.3, 0.5, 0.77, 0.99, 1 - 1e-6], dtype=torch.float64)
ROW = T[2:6]
V = 4


def written_out(t: Tensor, p: float) -> tuple[Tensor, Tensor, Tensor]:
    """alpha, the mask's mass and that of each token, as the paper has them."""
    b = 2 * p / (1 - p)
    total = 1 + b * (t * (1 - t)).sqrt()
    return (1 - t) / total, t / total, b * (t * (1 - t)).sqrt() / total / V


@pytest.mark.parametrize("p", [1e-6, 0.1, 0.2, 0.9])
def test_the_noise_is_the_paper_s_at_every_time(p):
    alpha, mask, token = written_out(T, p)
    process = Gidd(V, p)
    torch.testing.assert_close(Hybrid(p).alpha(T), alpha, rtol=1e-14, atol=0)
    found = process.noise(torch.full(T.shape, V), alpha)
    torch.testing.assert_close(found, mask, rtol=1e-6, atol=1e-15)
    found = process.noise(torch.zeros(T.shape).long(), alpha)
    torch.testing.assert_close(found, token, rtol=1e-6, atol=1e-15)
    assert found[4].item() * V == pytest.approx(p)  # the option's meaning


@pytest.mark.parametrize("p", [1e-3, 0.1, 0.9])
def test_the_schedule_and_the_noise_have_their_slopes(p):
    schedule, process = Hybrid(p), Gidd(V, p)
    t = T[1:-1].clone().requires_grad_()
    alpha = schedule.alpha(t)
    (slope,) = torch.autograd.grad(alpha.sum(), t)
    torch.testing.assert_close(schedule.slope(t), slope)
    torch.testing.assert_close(schedule.inverse(alpha), t, rtol=1e-6, atol=0)
    level = alpha.detach().requires_grad_()
    for state in (0, V):
        tokens = torch.full(t.shape, state)
        (rise,) = torch.autograd.grad(process.noise(tokens, level).sum(), level)
        torch.testing.assert_close(process.noise_slope(tokens, level), rise, rtol=1e-6, atol=1e-9)


def test_at_the_ends_there_is_no_noise_and_no_signal():
    ends = torch.tensor([1.0, 0.0]).double()
    assert Hybrid().inverse(ends).tolist() == [0.0, 1.0]
    assert Hybrid().alpha(torch.tensor([0.0, 1.0]).double()).tolist() == [1.0, 0.0]
    assert Hybrid().slope(torch.tensor([0.0, 1.0]).double()).tolist() == [-math.inf, -1.0]
    assert Gidd(V).noise(torch.tensor([V, V]), ends).tolist() == [0.0, 1.0]
    assert Gidd(V).noise(torch.tensor([0, 0]), ends).tolist() == [0.0, 0.0]
    assert (Gidd(V).sample_prior((3, 5), torch.Generator()) == V).all()


@pytest.mark.parametrize("alpha", [0.9, 0.5, 0.01])
def test_noise_is_drawn_as_often_as_its_mass_says(alpha):
    level = torch.full((20_000,), alpha).double()
    drawn = Gidd(V, 0.4).sample_noise((20_000,), level, torch.Generator().manual_seed(0))
    law = Gidd(V, 0.4).noise(torch.arange(V + 1), level[: V + 1]) / (1 - alpha)
    assert law.sum().item() == pytest.approx(1)
    assert chi_square(drawn, law) > 0.01


def objective(**options) -> HybridNelbo:
    process = Gidd(V)
    return HybridNelbo(model(process, TinyNetwork(V + 1), Hybrid(), Vocabulary()), **options)


def test_the_weights_of_the_bound_are_the_published_ones():
    """1 / (t (1 - t)) at masks and half of that at wrong tokens."""
    levels = Hybrid().alpha(ROW), Hybrid().slope(ROW)
    x0, wrong, mask = (torch.full(ROW.shape, state) for state in (0, 1, V))
    expected = 1 / (ROW * (1 - ROW))
    torch.testing.assert_close(objective().weight(mask, x0, *levels), expected)
    torch.testing.assert_close(objective().weight(wrong, x0, *levels), expected / 2)


def test_the_bound_is_the_paper_s():
    """w times the divergences of the whole marginals, which Nelbo writes in another form."""
    built, logits = objective(), torch.randn(4, V + 1, generator=torch.Generator().manual_seed(0))
    levels = Hybrid().alpha(ROW), Hybrid().slope(ROW)
    x_t, x0 = torch.tensor([0, 1, V, V]), torch.tensor([0, 0, 0, 2])
    predicted = Vocabulary().log_x0(logits.double(), x_t, torch.tensor(0.5), built.process).exp()
    noise = built.process.noise_row(levels[0], predicted)
    signal = levels[0][:, None]
    true = signal * log_one_hot(x0, V + 1).double().exp() + noise
    learned = signal * predicted + noise
    ratio = (true / learned).gather(-1, x_t[:, None])[:, 0]
    divergence = (true * (true / learned).log()).sum(-1)
    expected = built.weight(x_t, x0, *levels) * (divergence + ratio - ratio.log() - 1)
    torch.testing.assert_close(built.row_loss(logits.double(), x_t, x0, *levels), expected)


def test_training_weighs_as_it_is_asked_to():
    logits = torch.randn(4, V + 1, generator=torch.Generator().manual_seed(0)).double()
    levels = Hybrid().alpha(ROW), Hybrid().slope(ROW)
    row = torch.tensor([0, 1, V, V]), torch.tensor([0, 0, 0, 2])
    of_bound = objective(weighting="bound")
    rows = of_bound.descended(logits, *row, *levels), of_bound.row_loss(logits, *row, *levels)
    assert torch.equal(*rows)
    bare = of_bound.row_loss(logits, *row, *levels) / of_bound.weight(*row, *levels)
    clipped = objective(weighting="clipped", max_weight=3.0)
    weights = of_bound.weight(*row, *levels).clamp_max(3)
    assert (weights == 3).any()
    assert (weights < 3).any()
    torch.testing.assert_close(clipped.descended(logits, *row, *levels), weights * bare)
    # At the true token w falls with its probability, by n / (alpha + n).
    token = written_out(ROW, 0.1)[2][0]
    weights = torch.tensor([token / (token + levels[0][0]), 1, 2, 2]).double()
    dynamic = objective(weighting="dynamic")
    torch.testing.assert_close(dynamic.descended(logits, *row, *levels), weights * bare)
    for built in (clipped, dynamic):
        found = built.row_loss(logits, *row, *levels)
        assert torch.equal(found, of_bound.row_loss(logits, *row, *levels)), "evaluation"
    common = 2 * ROW * (1 - ROW)
    torch.testing.assert_close(weights, common * of_bound.weight(*row, *levels))


@pytest.mark.parametrize("p", [0.0, 1.0, -0.1, math.nan])
def test_shares_out_of_range_are_refused(p):
    with pytest.raises(ValueError, match="p_uniform"):
        Gidd(V, p)
    with pytest.raises(ValueError, match="p_uniform"):
        Hybrid(p)


def test_a_weight_of_nothing_is_refused():
    with pytest.raises(ValueError, match="max_weight"):
        objective(max_weight=0.0)
