"""Likelihoods of continuations, on laws small enough to enumerate."""

import math

import pytest
import torch
from small_law import CONTEXT, ENDINGS, LAW, TEXTS, asked, close_to, truth

from platform_core.draws import Draws
from platform_core.errors import UsageError
from platform_core.objective import Loss, Nelbo, Noised
from platform_core.process import Absorbing, Uniform
from platform_core.schedule import LogLinear
from platform_core.testing.toy import (
    ExactDenoiser,
    TinyNetwork,
    ToyLaw,
    all_sequences,
    model,
    tanh_sinh,
    transition,
)
from platform_core.types import Batch
from platform_harness.likelihood import (
    CleanContext,
    NoisedContext,
    Text,
    _answer,
    at_counts,
    standard_error,
)

both = pytest.mark.parametrize("process", [Absorbing(3), Uniform(3)], ids=["absorbing", "uniform"])


def exact(process):
    return Nelbo(model(process, ExactDenoiser(LAW, process)))


def untrained(process):
    torch.manual_seed(0)
    return Nelbo(model(process, TinyNetwork(process.num_states).double()))


def clean_bounds(objective):
    """B(x | c) of every ending: every x_t enumerated, levels by quadrature, the context clean."""
    process, backbone = objective.denoiser.process, objective.model.backbone
    nodes, weights = tanh_sinh()
    noisy = all_sequences(process.num_states, 2).repeat(len(nodes), 1)
    alpha = nodes.repeat_interleave(process.num_states**2)[:, None]
    each = weights.repeat_interleave(process.num_states**2)
    x_t = torch.cat((torch.tensor(CONTEXT).expand(len(noisy), 1), noisy), dim=1)
    logits = backbone(x_t, -alpha.log() if process.time_conditioned else None)[:, 1:]
    found = []
    for ending in torch.tensor(ENDINGS):
        chance = transition(process, ending, noisy, alpha).prod(-1)
        columns = (noisy, ending.expand_as(noisy), alpha.expand(noisy.shape))
        rows = [column.reshape(-1) for column in columns]
        f = objective.row_loss(logits.flatten(0, 1), *rows, -torch.ones_like(rows[2]))
        # Where masks have not reached a token there is nothing to pay.
        f = torch.where(process.changeable(noisy), f.view(noisy.shape), 0.0).sum(-1)
        found.append(torch.where(chance > 0, each * chance * f, 0.0).sum())
    return torch.stack(found)


def test_under_masks_the_bound_behind_a_clean_context_is_minus_log_p_of_the_best_network():
    torch.testing.assert_close(clean_bounds(exact(Absorbing(3))), -truth(), rtol=1e-6, atol=1e-7)


def test_under_uniform_noise_it_is_above_that_on_average():
    """The network takes the clean context for a noisy one, so that it makes too little of it."""
    excess = (truth().exp() * (clean_bounds(exact(Uniform(3))) + truth())).sum()
    assert excess == pytest.approx(0.017, abs=0.01)


@both
def test_the_bounds_of_all_endings_are_those_of_one_law(process):
    """exp(-B) sums to at most 1, whatever the network: each B is above -log p of a law."""
    total = (-clean_bounds(untrained(process))).exp().sum()
    assert 0.1 < total < 1
    assert (-clean_bounds(exact(process))).exp().sum() < 1 + 1e-6


@pytest.mark.slow
@both
@pytest.mark.parametrize("network", [exact, untrained])
def test_the_estimate_behind_a_clean_context_is_unbiased(process, network):
    objective = network(process)
    (found,) = asked(CleanContext(objective, 4000), batch_size=2000)
    close_to(-clean_bounds(objective), found)


@pytest.mark.slow
@both
def test_what_the_bound_of_the_whole_grows_by_is_log_p_of_the_best_network(process):
    (found,) = asked(NoisedContext(ContextAware(process), 4000), batch_size=2000)
    close_to(truth(), found)


class Prefixes(ExactDenoiser):
    """The best network for a law and for the law of its beginnings."""

    def encode(self, inputs, sigma):
        length = inputs.shape[1]
        rest = tuple(range(length, self.law.length))
        law = ToyLaw(self.law.probs.sum(rest) if rest else self.law.probs)
        alpha = torch.tensor(0.5) if sigma is None else (-sigma.double()).exp()
        return law.log_x0(inputs, alpha, self.process)


def ContextAware(process):  # noqa: N802
    return Nelbo(model(process, Prefixes(LAW, process)))


def test_under_masks_each_place_is_guessed_behind_the_context_alone():
    (found,) = asked(CleanContext(exact(Absorbing(3)), 2))
    joint = truth().exp().view(3, 3)
    likeliest = (int(joint.sum(1).argmax()), int(joint.sum(0).argmax()))
    hits = [e for e, hit in zip(ENDINGS, found.guessed, strict=True) if hit]
    assert hits == [likeliest]


@both
@pytest.mark.parametrize("way", [CleanContext, NoisedContext])
def test_answers_repeat_themselves_and_know_no_batches(process, way):
    likelihood = way(untrained(process), 4)
    texts = [*TEXTS[:2], Text((0, 1), 1), Text((0, 1, 1, 2), 2)]
    first = asked(likelihood, texts, number=2, batch_size=3)
    for one, two in zip(first, asked(likelihood, texts, number=2), strict=True):
        assert one.log_probs == pytest.approx(two.log_probs, abs=1e-5)
        assert one.guessed == two.guessed
    assert asked(likelihood, texts, number=2, batch_size=3) == first
    other = asked(likelihood, texts, seed=2)[0]
    assert all(a != b for a, b in zip(first[0].log_probs, other.log_probs, strict=True))
    assert first[0].log_probs != first[1].log_probs


@both
@pytest.mark.parametrize("way", [CleanContext, NoisedContext])
def test_the_texts_of_a_question_share_levels_and_noise(process, way):
    likelihood = way(untrained(process), 6)
    rows = []
    for text in (Text((2, 1, 0), 1), Text((2, 0, 1), 1)):
        _, part = likelihood.parts(text)[0]
        draws = Draws.derive(7, step=0, first=0, total=6)
        rows.append(likelihood.rows(part, 3, draws))
    one, other = rows
    assert torch.equal(one.alpha, other.alpha)
    assert torch.equal(one.weights, other.weights)
    noisy = [(row.x_t != row.x0) for row in rows]
    places = noisy[0] | noisy[1]
    assert places.any()
    if isinstance(process, Absorbing):
        assert torch.equal(*noisy)
    else:
        assert torch.equal(one.x_t[noisy[0] & noisy[1]], other.x_t[noisy[0] & noisy[1]])


@pytest.mark.slow
def test_noise_in_common_makes_differences_less_noisy():
    likelihood = CleanContext(untrained(Uniform(3)), 16)
    pair = [Text((2, 1, 0), 1), Text((2, 1, 1), 1)]
    together = [answer.log_probs for answer in asked(likelihood, pair, number=60)]
    apart = [
        [
            asked(likelihood, [text], seed=seed + 5000 * n)[0].log_probs[0]
            for seed, text in enumerate(pair)
        ]
        for n in range(60)
    ]
    shared, independent = (torch.tensor(v).diff(dim=1).var() for v in (together, apart))
    assert shared < 0.7 * independent


@pytest.mark.parametrize("clean_costs", [True, False])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_readings_have_the_integral_over_all_levels_as_their_mean(n: int, clean_costs: bool):
    """int_0^1 sum_m C(n, m) t^m (1 - t)^(n - m) f(t, m) dt, with f of one m after another."""
    number, generator = 200_000, torch.Generator().manual_seed(0)
    u = (torch.arange(number) + torch.rand(number, generator=generator)).double() / number
    reached = torch.rand(number, n, generator=generator, dtype=torch.float64)
    found = at_counts(u[:, None], reached, LogLinear(eps=0), clean_costs=clean_costs)
    m, t = found.noisy.sum(-1), found.t.squeeze(-1)
    for reading in range(0 if clean_costs else 1, n + 1):
        for curve in (torch.ones_like, torch.square, lambda t: (3 * t).cos()):
            values = torch.where(m == reading, found.weights * curve(t), 0.0)
            nodes, weights = tanh_sinh()
            chance = math.comb(n, reading) * nodes**reading * (1 - nodes) ** (n - reading)
            truth = float((weights * chance * curve(nodes)).sum())
            error = float(values.std()) / number**0.5
            assert abs(float(values.mean()) - truth) < 4 * error + 1e-9


@pytest.mark.slow
def test_readings_when_noise_has_reached_a_token_vary_less():
    """The estimate at uniform levels, as evaluation of a corpus has it, is the one to beat."""
    objective = exact(Absorbing(3))
    ending = torch.tensor([TEXTS[4].tokens]).expand(8, 3)
    mask = torch.tensor([[False, True, True]]).expand(8, 3)

    def uniform(seed):
        draws = Draws.derive(seed, step=0, first=0, total=8)
        alpha = 1 - draws.times(8)
        noise = draws.each(objective.denoiser.process.corrupt, ending, alpha)
        x_t = torch.where(mask, noise, ending)
        noised = Noised(x_t, x_t, alpha, torch.full_like(alpha, -1))
        return float(objective.integrand(Batch(ending, mask), noised).per_token.sum(-1).mean())

    before = torch.tensor([uniform(seed) for seed in range(40)])
    found = asked(CleanContext(objective, 8), [TEXTS[4]], number=40)
    after = torch.tensor([answer.log_probs[0] for answer in found])
    assert after.var() < 0.1 * before.var()


@pytest.mark.slow
def test_the_standard_error_is_the_spread_of_repeated_estimates():
    for objective in (untrained(Absorbing(3)), untrained(Uniform(3))):
        found = asked(CleanContext(objective, 16), TEXTS[:3], number=240)
        spread = torch.tensor([answer.log_probs for answer in found]).std(0).mean()
        said = torch.tensor([answer.standard_errors for answer in found]).square().mean(0).sqrt()
        assert 0.9 * spread < said.mean() < 1.5 * spread
        margins = torch.tensor([answer.margin_error for answer in found]).mean()
        assert 0 < margins < 3 * said.mean()


def test_the_standard_error_of_a_slope_is_small_and_of_one_value_nothing():
    assert standard_error(torch.tensor([3.0])) == 0
    assert standard_error(torch.linspace(0, 1, 100)) == pytest.approx(
        1 / 99 / math.sqrt(200), rel=0.02
    )


def test_the_error_of_a_sum_counts_the_noise_that_its_texts_share():
    """Twice the same text has twice the error of one, not the root of two times."""
    once = torch.tensor([[0.0, 1.0, 3.0, 2.0]], dtype=torch.float64)
    one, two = (_answer(once.expand(number, -1), [False] * number) for number in (1, 2))
    assert one.sum_error == one.standard_errors[0] > 0
    assert two.sum_error == pytest.approx(2 * one.sum_error)


def test_a_network_whose_likelihood_is_not_finite_is_refused():
    objective = exact(Absorbing(3))
    objective.integrand = lambda batch, noised: Loss(
        torch.tensor(math.nan), torch.full(batch.x0.shape, math.nan)
    )
    with pytest.raises(UsageError, match="likelihood is not finite"):
        asked(CleanContext(objective, 8), [TEXTS[4]], number=1)
