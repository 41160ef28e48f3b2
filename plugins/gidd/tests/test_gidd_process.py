"""GIDD's noise by enumeration: steps forward and back, draws, the bound and the sampler."""

from itertools import pairwise

import pytest
import torch

from platform_core.objective import Nelbo
from platform_core.sampler import Ancestral
from platform_core.testing.toy import (
    ExactDenoiser,
    ToyLaw,
    chain_law,
    chi_square,
    double,
    exact_model,
    index_of,
    integrated_bound,
    model,
    one_token_law,
    random_law,
    transition,
    two_token_law,
)
from platform_gidd.process import Gidd
from platform_gidd.schedule import Hybrid

LEVELS = [(0.7, 0.4), (0.401, 0.4), (1.0, 0.3), (0.2, 0.0), (0.999999, 0.95)]
levels = pytest.mark.parametrize(("alpha_s", "alpha_t"), LEVELS)
shares = pytest.mark.parametrize("p", [0.05, 0.6])


def hybrid(vocab_size: int) -> Gidd:
    return Gidd(vocab_size, 0.4)


@shares
@levels
def test_marginals_compose(p, alpha_s, alpha_t):
    """Chapman-Kolmogorov: sum over x_s of q(x_s | x_0) q(x_t | x_s) is q(x_t | x_0)."""
    process, states = Gidd(3, p), torch.arange(4)
    s, t = double(alpha_s), double(alpha_t)
    step = process.added(states, s, t) + (t / s) * torch.eye(4).double()  # [x_s, x_t]
    assert (step >= 0).all()
    torch.testing.assert_close(step.sum(-1), torch.ones(4).double())
    for x0 in range(3):
        law_s = transition(process, torch.tensor(x0), states, s)
        law_t = transition(process, torch.tensor(x0), states, t)
        torch.testing.assert_close(law_s @ step, law_t, rtol=0, atol=1e-14)
        assert law_t.sum().item() == pytest.approx(1, abs=1e-14)


@shares
@levels
def test_the_reverse_is_bayes_rule(p, alpha_s, alpha_t):
    """By score, by posterior and by the mixture of three; with mass on the mask too."""
    process, states = Gidd(3, p), torch.arange(4)
    s, t = double(alpha_s), double(alpha_t)
    x_t = states[transition(process, torch.tensor(0), states, t) + process.noise(states, t) > 0]
    x0 = torch.rand(len(x_t), 4, generator=torch.Generator().manual_seed(0)).double()
    x0 /= x0.sum(-1, keepdim=True)
    step = process.added(states, s, t) + (t / s) * torch.eye(4).double()
    joint = (s * x0 + process.noise(states, s)) * step[:, x_t].T
    expected = joint / joint.sum(-1, keepdim=True)
    posterior = process.posterior(x0.log(), x_t, s, t)
    torch.testing.assert_close(posterior, expected, rtol=0, atol=1e-12)
    if alpha_t > 0:
        score = process.log_score(x0.log(), x_t, t)
        torch.testing.assert_close(process.reverse(score, x_t, s, t), expected, rtol=0, atol=1e-11)
    parts = process.posterior_mixture(x0.log(), x_t, s, t)
    noise = process.noise(states, s) / (1 - s).clamp_min(1e-300)
    mixed = parts.denoiser[:, None] * x0 + parts.prior[:, None] * noise
    mixed[torch.arange(len(x_t)), x_t] += parts.stay
    torch.testing.assert_close(mixed, expected, rtol=0, atol=1e-12)


@levels
def test_the_two_halves_of_a_step_draw_from_the_posterior(alpha_s, alpha_t):
    process, number = hybrid(3), 20_000
    log_x0 = double(0.5, 0.3, 0.1, 0.1).log()[None]
    s, t = (torch.full((number,), value).double() for value in (alpha_s, alpha_t))
    for state in (0, 3) if alpha_t else (3,):
        generator = torch.Generator().manual_seed(state)
        x_t = torch.full((number,), state)
        thinned = process.thin(x_t, s, t, generator=generator)
        x_s = process.draw_open(
            log_x0.expand(number, -1), x_t, thinned.alpha_s, t, generator=generator
        )
        posterior = process.posterior(log_x0, x_t[:1], s[:1], t[:1])[0]
        assert chi_square(torch.where(thinned.open, x_s, x_t), posterior) > 0.01


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.95])
def test_corrupt_draws_from_the_marginal(alpha):
    x0 = torch.full((200, 50), 2)
    level = torch.full((200, 1), alpha).double()
    x_t = hybrid(4).corrupt(x0, level, torch.Generator().manual_seed(1))
    law = transition(hybrid(4), torch.tensor(2), torch.arange(5), double(alpha))
    assert chi_square(x_t, law) > 0.01


@shares
def test_the_rate_is_that_of_the_transition(p):
    """(q_t'[z] - alpha' / alpha q_t[z]) of the formula, and n_{t|s} / (t - s) as s nears t."""
    process, schedule, states = Gidd(3, p), Hybrid(p), torch.arange(4)
    for t in (0.05, 0.4, 0.9):
        step = 1e-6
        alpha_s, alpha_t = (
            schedule.alpha(double(t - step / 2)),
            schedule.alpha(double(t + step / 2)),
        )
        expected = process.added(states, alpha_s, alpha_t) / step
        now = double(t)
        rate = process.rate(states, schedule.alpha(now), schedule.slope(now))
        torch.testing.assert_close(rate, expected, rtol=1e-5, atol=1e-7)
        assert (rate > 0).all()


@shares
@pytest.mark.parametrize("law", [one_token_law(), two_token_law()], ids=["one", "two"])
def test_the_bound_of_the_exact_denoiser_is_the_likelihood(p, law: ToyLaw):
    process = Gidd(law.num_tokens, p)
    built = Nelbo(model(process, ExactDenoiser(law, process)))
    x0 = law.sequences()
    torch.testing.assert_close(integrated_bound(built, x0), -law.log_prob(x0), rtol=0, atol=1e-6)


def test_the_bound_of_another_denoiser_is_larger():
    law, process = two_token_law(), hybrid(3)
    wrong = Nelbo(model(process, ExactDenoiser(random_law(3, 2, seed=5), process)))
    x0 = law.sequences()
    average = (law.probs.flatten() * integrated_bound(wrong, x0)).sum()
    assert average > -(law.probs.flatten() * law.log_prob(x0)).sum() + 0.01


def test_ancestral_steps_return_the_law_of_one_token():
    """Any steps are exact for one position."""
    law = one_token_law()
    for steps in (1, 3):
        alphas = torch.linspace(0, 1, steps + 1).double()
        reached = chain_law(law, hybrid(3), alphas)
        torch.testing.assert_close(reached[:3], law.probs, rtol=0, atol=1e-12)
        assert reached[3] < 1e-12


def test_ancestral_steps_near_the_law_of_two_tokens_as_they_become_small():
    law, errors = two_token_law(), []
    clean = index_of(law.sequences(), 4)
    for steps in (4, 16, 64):
        reached = chain_law(law, hybrid(3), torch.linspace(0, 1, steps + 1).double())
        errors.append((reached[clean] - law.probs.flatten()).abs().sum().item())
    assert all(later < 0.4 * earlier for earlier, later in pairwise(errors))


def test_the_sampler_draws_from_the_enumerated_chain():
    law, schedule = two_token_law(), Hybrid(0.4)
    built = exact_model(law, hybrid, schedule)
    drawn = Ancestral(steps=3)(built, (8000, 2), torch.Generator().manual_seed(0)).tokens
    times = torch.linspace(1, 1e-5, 4, dtype=torch.float64)
    alphas = torch.cat((schedule.alpha(times), double(1)))
    chances = chain_law(law, hybrid(3), alphas)[index_of(law.sequences(), 4)]
    assert chi_square(index_of(drawn, 3), chances) > 0.01
