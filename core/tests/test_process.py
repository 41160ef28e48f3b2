"""Processes: every law by enumeration, every draw by its frequencies."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from platform_core.objective import score_entropy
from platform_core.process import (
    LOG_ZERO,
    Absorbing,
    AbsorbingOrUniform,
    Interpolating,
    MovingPrior,
    Uniform,
    log_one_hot,
)
from platform_core.testing.toy import chi_square, double, seeded, transition
from platform_core.types import LogProbs, Tokens

both = pytest.mark.parametrize("process_class", [Absorbing, Uniform])
levels = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted)


def random_log_x0(num_states: int, rows: int, seed: int) -> LogProbs:
    """Rows of the flat Dirichlet over all states, a mask included."""
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.rand(rows, num_states, generator=generator, dtype=torch.float64)
        .log()
        .neg()
        .log()
        .log_softmax(-1)
    )


def bayes(
    process: Interpolating, x0: Tensor, x_t: Tokens, alpha_s: float, alpha_t: float
) -> Tensor:
    """q(x_s | x_t) by enumerating x_s: q(x_t | x_s) q(x_s) over its sum; x0 is a law."""
    states = torch.arange(process.num_states)
    pi = process.prior(states)
    forward = transition(process, states[:, None], x_t[None], double(alpha_t / alpha_s)).T
    joint = forward * (alpha_s * x0 + (1 - alpha_s) * pi)
    return joint / joint.sum(-1, keepdim=True)


def noise(process: Interpolating) -> Tokens:
    """States that noise can have reached, one per row."""
    states = torch.arange(process.num_states)
    return states[process.changeable(states)]


@both
@given(num_tokens=st.integers(2, 6), levels=levels, seed=st.integers(0, 1000))
def test_posterior_is_bayes_rule(process_class, num_tokens, levels, seed):
    alpha_t, alpha_s = 0.999 * levels[0], max(levels[1], 1e-3)
    process = process_class(num_tokens)
    x_t = noise(process)
    log_x0 = random_log_x0(process.num_states, len(x_t), seed)
    posterior = process.posterior(log_x0, x_t, double(alpha_s), double(alpha_t))
    expected = bayes(process, log_x0.exp(), x_t, alpha_s, alpha_t)
    torch.testing.assert_close(posterior, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(posterior.sum(-1), torch.ones(len(x_t)).double(), rtol=0, atol=1e-12)


@both
@given(num_tokens=st.integers(2, 6), levels=levels, seed=st.integers(0, 1000))
def test_reverse_of_the_score_is_the_posterior(process_class, num_tokens, levels, seed):
    alpha_t, alpha_s = 0.01 + 0.98 * double(levels[0]), 0.01 + 0.99 * double(levels[1])
    process = process_class(num_tokens)
    x_t = noise(process)
    log_x0 = random_log_x0(process.num_states, len(x_t), seed)
    reverse = process.reverse(process.log_score(log_x0, x_t, alpha_t), x_t, alpha_s, alpha_t)
    posterior = process.posterior(log_x0, x_t, alpha_s, alpha_t)
    torch.testing.assert_close(reverse, posterior, rtol=0, atol=1e-12)


@both
@given(num_tokens=st.integers(2, 6), levels=levels, seed=st.integers(0, 1000))
def test_the_mixture_is_the_posterior(process_class, num_tokens, levels, seed):
    alpha_t, alpha_s = double(0.999 * levels[0]), double(max(levels[1], 1e-3))
    process = process_class(num_tokens)
    x_t = noise(process)
    log_x0 = random_log_x0(process.num_states, len(x_t), seed)
    parts = process.posterior_mixture(log_x0, x_t, alpha_s, alpha_t)
    states = torch.arange(process.num_states)
    stay = parts.stay[:, None] * (states == x_t[:, None])
    mixed = (
        stay + parts.denoiser[:, None] * log_x0.exp() + parts.prior[:, None] * process.prior(states)
    )
    torch.testing.assert_close(
        mixed, process.posterior(log_x0, x_t, alpha_s, alpha_t), rtol=0, atol=1e-12
    )
    torch.testing.assert_close(sum(parts), torch.ones(len(x_t)).double(), rtol=0, atol=1e-12)


@both
@given(num_tokens=st.integers(2, 6), levels=levels, seed=st.integers(0, 1000))
def test_a_step_leaves_tokens_open_as_often_as_any_prediction_can_redraw_them(
    process_class, num_tokens, levels, seed
):
    """A tight bound: the prediction that is sure of another token reaches it, none exceeds it."""
    alpha_t, alpha_s = double(0.999 * levels[0]), double(max(levels[1], 1e-3))
    process = process_class(num_tokens)
    x_t = noise(process)[:1]
    level = process.thin(x_t, alpha_s, alpha_t, generator=torch.Generator()).alpha_s
    chance = (alpha_s - alpha_t) / ((1 - alpha_t) * level)
    sure = log_one_hot((x_t + 1) % process.num_states, process.num_states, torch.float64)
    for log_x0 in (sure, random_log_x0(process.num_states, 1, seed)):
        parts = process.posterior_mixture(log_x0, x_t, alpha_s, alpha_t)
        redrawn = parts.denoiser + parts.prior * (process.prior(x_t) < 1)
        assert redrawn <= chance + 1e-12
        if log_x0 is sure:
            torch.testing.assert_close(redrawn, chance)


@both
@pytest.mark.parametrize(("alpha_s", "alpha_t"), [(0.7, 0.4), (1.0, 0.4), (0.4, 0.0), (0.5, 0.49)])
def test_the_two_halves_of_a_step_draw_from_the_posterior(process_class, alpha_s, alpha_t):
    """Which tokens are open, and what becomes of those; also with mass on the mask."""
    process, number = process_class(3), 40_000
    log_x0 = random_log_x0(process.num_states, 1, seed=3)
    s, t = (torch.full((number,), value, dtype=torch.float64) for value in (alpha_s, alpha_t))
    for state in noise(process).tolist():
        generator = torch.Generator().manual_seed(state)
        x_t = torch.full((number,), state)
        thinned = process.thin(x_t, s, t, generator=generator)
        drawn = process.draw_open(
            log_x0[0].expand(number, -1)[thinned.open],
            x_t[thinned.open],
            thinned.alpha_s[thinned.open],
            t[thinned.open],
            generator=generator,
        )
        x_s = x_t.masked_scatter(thinned.open, drawn)
        posterior = process.posterior(log_x0, x_t[:1], s[:1], t[:1])[0]
        assert chi_square(x_s, posterior) > 0.01
        if alpha_s < 1 and alpha_t > 0:
            assert 0 < thinned.open.double().mean() < 1


def test_tokens_that_masking_cannot_change_are_never_open():
    x_t = torch.tensor([[0, 3]]).expand(100, 2)
    thinned = Absorbing(3).thin(x_t, double(0.7), double(0.4), generator=torch.Generator())
    assert not thinned.open[:, 0].any()
    assert thinned.open[:, 1].any()


@both
@given(num_tokens=st.integers(2, 6), levels=levels)
def test_chapman_kolmogorov(process_class, num_tokens, levels):
    """Noising to t and stepping back to s with the true token gives the law at s."""
    alpha_t, alpha_s = double(0.999 * levels[0]), double(max(levels[1], 1e-3))
    process = process_class(num_tokens)
    states = torch.arange(process.num_states)
    for x0 in range(num_tokens):
        law_t = transition(process, torch.tensor(x0), states, alpha_t)
        reached = law_t > 0
        one_hot = log_one_hot(torch.full((int(reached.sum()),), x0), process.num_states).double()
        back = process.posterior(one_hot, states[reached], alpha_s, alpha_t)
        law_s = transition(process, torch.tensor(x0), states, alpha_s)
        torch.testing.assert_close(law_t[reached] @ back, law_s, rtol=0, atol=1e-12)


@both
@given(num_tokens=st.integers(2, 6), alpha=st.floats(1e-6, 1 - 1e-6), seed=st.integers(0, 1000))
def test_log_score_is_the_ratio_of_marginals(process_class, num_tokens, alpha, seed):
    process = process_class(num_tokens)
    x_t = noise(process)
    log_x0 = random_log_x0(process.num_states, len(x_t), seed)
    marginal = alpha * log_x0.exp() + (1 - alpha) * process.prior(torch.arange(process.num_states))
    expected = (marginal / marginal.gather(-1, x_t[:, None])).log()
    score = process.log_score(log_x0, x_t, double(alpha))
    torch.testing.assert_close(score, expected, rtol=1e-10, atol=1e-10)
    assert (score.gather(-1, x_t[:, None]) == 0).all()


def test_uniform_posterior_has_the_printed_values():
    process, x_t = Uniform(3), torch.tensor([1])
    xi = double(0.2, 0.5, 0.3).log()[None]
    truth = process.posterior(
        log_one_hot(torch.tensor([0]), 3).double(), x_t, double(0.7), double(0.4)
    )
    plug_in = process.posterior(xi, x_t, double(0.7), double(0.4))
    clean = process.posterior(xi, x_t, double(1), double(0.4))
    for law, expected in (
        (truth, double(0.5714285714, 0.3571428571, 0.0714285714)),
        (plug_in, double(0.0857142857, 0.8035714286, 0.1107142857)),
        (clean, double(0.10, 0.75, 0.15)),
    ):
        torch.testing.assert_close(law[0], expected, rtol=0, atol=5e-11)
    divergence = (truth * (truth / plug_in).log()).sum().item()
    assert divergence == pytest.approx(0.763146704791018, abs=1e-14)


def test_absorbing_posterior_has_the_printed_values():
    log_x0 = torch.cat((double(0.2, 0.5, 0.3).log(), double(LOG_ZERO)))[None]
    law = Absorbing(3).posterior(log_x0, torch.tensor([3]), double(0.7), double(0.4))
    torch.testing.assert_close(law[0], double(0.10, 0.25, 0.15, 0.5), rtol=0, atol=1e-14)


@both
def test_at_pure_noise_the_posterior_forgets_the_token(process_class):
    process = process_class(4)
    x_t = noise(process)
    log_x0 = random_log_x0(process.num_states, len(x_t), seed=0)
    law = process.posterior(log_x0, x_t, double(0.3), double(0))
    expected = 0.3 * log_x0.exp() + 0.7 * process.prior(torch.arange(process.num_states))
    torch.testing.assert_close(law, expected, rtol=0, atol=1e-14)


def test_a_step_to_clean_text_reweights_the_prediction_by_the_evidence():
    process, x_t = Uniform(4), torch.arange(4)
    log_x0 = random_log_x0(4, 4, seed=0)
    law = process.posterior(log_x0, x_t, double(1), double(0.4))
    weight = 4 * 0.4 * torch.eye(4).double() + 0.6
    expected = log_x0.exp() * weight / (log_x0.exp() * weight).sum(-1, keepdim=True)
    torch.testing.assert_close(law, expected, rtol=0, atol=1e-14)


def draw_posterior(process, log_x0, x_t, levels, generator):
    """Both halves of a reverse step."""
    alpha_s, alpha_t = (double(level) for level in levels)
    thinned = process.thin(x_t, alpha_s, alpha_t, generator=generator)
    drawn = process.draw_open(log_x0, x_t, thinned.alpha_s, alpha_t, generator=generator)
    return torch.where(thinned.open, drawn, x_t)


def test_at_clean_text_the_second_half_is_the_whole_draw():
    for process in (Absorbing(4), Uniform(4)):
        x_t = noise(process)
        thinned = process.thin(x_t, double(1), double(0.4), generator=torch.Generator())
        assert torch.equal(thinned.open, process.changeable(x_t))
        assert (thinned.alpha_s == 1).all()


def test_tokens_that_absorbing_noise_left_alone_stay():
    process, x_t = Absorbing(3), torch.tensor([0, 1, 2])
    law = process.posterior(log_one_hot(x_t, 4).double(), x_t, double(0.7), double(0.4))
    torch.testing.assert_close(law, log_one_hot(x_t, 4).double().exp(), rtol=0, atol=1e-14)
    wrong = log_one_hot(torch.tensor([1, 2, 0]), 4)
    generator = torch.Generator().manual_seed(0)
    for prediction in (wrong, random_log_x0(4, 3, seed=0)):
        drawn = draw_posterior(process, prediction, x_t, (0.7, 0.4), generator)
        assert drawn.tolist() == x_t.tolist()


@both
def test_noise_lands_where_the_prior_is_positive(process_class):
    process = process_class(3)
    states = torch.arange(process.num_states)
    assert process.prior(states).sum().item() == pytest.approx(1, abs=1e-15)
    expected = [False, False, False, True] if process_class is Absorbing else [True] * 3
    assert process.changeable(states).tolist() == expected
    drawn = process.sample_prior((200, 50), torch.Generator().manual_seed(0))
    assert chi_square(drawn, process.prior(states)) > 0.01


@both
@pytest.mark.parametrize("alpha", [0.0, 0.05, 0.6, 0.95, 1.0])
def test_corrupt_draws_from_the_marginal(process_class, alpha):
    process = process_class(5)
    x0 = torch.full((400, 50), 2)
    x_t = process.corrupt(
        x0, torch.full((400, 1), alpha).double(), torch.Generator().manual_seed(1)
    )
    law = transition(process, torch.tensor(2), torch.arange(process.num_states), double(alpha))
    if alpha == 1:
        assert (x_t == x0).all()
    else:
        assert chi_square(x_t, law) > 0.01


def test_corrupt_gives_every_sequence_its_own_level():
    alpha = torch.tensor([[1.0], [0.0]]).double()
    x_t = Absorbing(5).corrupt(torch.ones(2, 40).long(), alpha, torch.Generator().manual_seed(0))
    assert x_t[0].unique().tolist() == [1]
    assert x_t[1].unique().tolist() == [5]


@both
@pytest.mark.parametrize(("alpha_s", "alpha_t"), [(0.7, 0.4), (0.401, 0.4), (1.0, 0.3), (0.2, 0.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_two_halves_of_a_draw_have_the_law_of_the_posterior(
    process_class, alpha_s, alpha_t, dtype
):
    process = process_class(5)
    for row, x_t in enumerate(noise(process)[:2]):
        log_x0 = random_log_x0(process.num_states, 1, seed=row)
        law = process.posterior(log_x0, x_t[None], double(alpha_s), double(alpha_t))[0]
        drawn = draw_posterior(
            process,
            log_x0.to(dtype).expand(20_000, -1),
            x_t.expand(20_000),
            (alpha_s, alpha_t),
            torch.Generator().manual_seed(row),
        )
        assert chi_square(drawn, law) > 0.01


def test_bregman_form_of_the_bound_has_the_printed_values():
    """f[x][z] for K = 3, alpha = .4, slope = -1, x_theta = (.2, .5, .3)."""
    process = Uniform(3)
    alpha, slope = double(0.4), double(-1)
    x_t, x0 = torch.arange(3).repeat(3), torch.arange(3).repeat_interleave(3)
    learned = process.log_score(double(0.2, 0.5, 0.3).log().expand(9, 3), x_t, alpha)
    true = process.log_score(log_one_hot(x0, 3, torch.float64), x_t, alpha)
    f = (process.rate(x_t, alpha, slope) * score_entropy(learned, true)).view(3, 3)
    expected = double(
        0.8407930001, 1.7408377076, 1.3319062438,
        0.5530910108, 0.2451649772, 0.7374480039,
        0.9249969297, 1.5182853866, 0.5800453511,
    ).view(3, 3)  # fmt: skip
    torch.testing.assert_close(f, expected, rtol=0, atol=6e-11)
    average = (transition(process, x0, x_t, alpha).view(3, 3) * f).sum(-1)
    expected = double(1.1190245903, 0.4052067893, 0.8366836739)
    torch.testing.assert_close(average, expected, rtol=0, atol=6e-11)


def test_bregman_form_of_the_bound_is_the_weighted_cross_entropy_under_masks():
    """alpha = .4, x_theta[x] = .5: (1 / .6) log 2."""
    process, x_t = Absorbing(3), torch.tensor([3])
    log_x0 = torch.cat((double(0.2, 0.5, 0.3).log(), double(LOG_ZERO)))[None]
    true = log_one_hot(torch.tensor([1]), 4, torch.float64)
    scores = (process.log_score(law, x_t, double(0.4)) for law in (log_x0, true))
    f = process.rate(x_t, double(0.4), double(-1)) * score_entropy(*scores)
    assert f.item() == pytest.approx(1.1552453009, abs=5e-11)


@both
@given(num_tokens=st.integers(2, 6), alpha=st.floats(1e-3, 0.999), seed=st.integers(0, 1000))
def test_score_entropy_is_positive_and_zero_at_the_truth(process_class, num_tokens, alpha, seed):
    process = process_class(num_tokens)
    x_t = noise(process)
    x0 = torch.zeros_like(x_t)
    true = process.log_score(log_one_hot(x0, process.num_states, torch.float64), x_t, double(alpha))
    learned = process.log_score(
        random_log_x0(process.num_states, len(x_t), seed), x_t, double(alpha)
    )
    assert (score_entropy(learned, true) > 0).all()
    assert (score_entropy(true, true) == 0).all()


class Family(AbsorbingOrUniform):
    """A family with both noises."""


class AbsorbingFamily(Family, Absorbing):
    """With masks."""


class UniformFamily(Family, Uniform):
    """With uniform noise."""


@pytest.mark.parametrize(
    ("options", "kind", "noise"),
    [
        ({}, AbsorbingFamily, Absorbing(4, time_conditioned=True)),
        ({"states": "absorbing"}, AbsorbingFamily, Absorbing(4, time_conditioned=True)),
        ({"states": "uniform"}, UniformFamily, Uniform(4)),
    ],
)
def test_objects_of_a_family_with_both_noises_are_of_one_of_them(options, kind, noise):
    process = kind(4, **options)
    assert isinstance(process, Family)
    assert vars(process) == vars(noise), "which are told the noise level"
    states = torch.arange(process.num_states)
    assert torch.equal(process.prior(states), noise.prior(states))
    same = copy.deepcopy(process)
    assert type(same) is kind
    assert vars(same) == vars(process)


class TokensThenMasks(MovingPrior):
    """Noise of uniform tokens at first and of masks in the end.

    n[mask] = (1 - alpha)^2,  n[token] = alpha (1 - alpha) / K
    """

    def __init__(self) -> None:
        super().__init__(3, num_states=4, time_conditioned=True)

    def noise(self, tokens, alpha):
        rest = 1 - alpha
        return torch.where(tokens == 3, rest**2, alpha * rest / 3)

    def noise_slope(self, tokens, alpha):
        return torch.where(tokens == 3, -2 * (1 - alpha), (1 - 2 * alpha) / 3)

    def sample_noise(self, shape, alpha, generator):
        masked = torch.rand(shape, generator=generator, dtype=torch.float64) < 1 - alpha
        tokens = torch.randint(3, shape, generator=generator)
        return torch.where(masked, 3, tokens)


def test_a_moving_prior_has_the_posterior_of_bayes() -> None:
    """q(x_s | x_t, x_0) from q(x_s | x_0) and the step q(x_t | x_s) between two levels."""
    process, states = TokensThenMasks(), torch.arange(4)
    s, t = (torch.tensor(level, dtype=torch.float64) for level in (0.7, 0.4))
    noise_s, noise_t = process.noise(states, s), process.noise(states, t)
    kept = t / s
    step = kept * torch.eye(4, dtype=torch.float64) + (noise_t - kept * noise_s)
    for clean in range(3):
        at_s = s * (states == clean) + noise_s
        both = at_s[:, None] * step
        torch.testing.assert_close(both.sum(0), t * (states == clean) + noise_t)
        certain = log_one_hot(torch.full((4,), clean), 4, torch.float64)
        found = process.posterior(certain, states, s.expand(4), t.expand(4))
        torch.testing.assert_close(found, (both / both.sum(0)).T)
    law = torch.tensor([0.6, 0.1, 0.3, 0.0], dtype=torch.float64)
    law = law.log().clamp_min(LOG_ZERO).expand(4, -1)
    levels = s.expand(4), t.expand(4)
    by_score = process.reverse(process.log_score(law, states, levels[1]), states, *levels)
    torch.testing.assert_close(by_score, process.posterior(law, states, *levels))


def test_a_step_of_a_moving_prior_draws_its_posterior() -> None:
    """Opened with the greatest chance of a redraw, then drawn: for every token and any law."""
    process, states, number = TokensThenMasks(), torch.arange(4), 40_000
    s, t = (torch.tensor(level, dtype=torch.float64) for level in (0.7, 0.4))
    law = torch.tensor([0.6, 0.1, 0.3, 0.0], dtype=torch.float64)
    law = law.log().clamp_min(LOG_ZERO).expand(4, -1)
    expected = process.posterior(law, states, s.expand(4), t.expand(4))
    for token in range(4):
        x_t = torch.full((number,), token)
        levels = s.expand(number), t.expand(number)
        thinned = process.thin(x_t, *levels, generator=seeded(token))
        drawn = process.draw_open(
            law[:1].expand(number, -1), x_t, thinned.alpha_s, levels[1], generator=seeded(9)
        )
        x_s = torch.where(thinned.open, drawn, x_t)
        shares = torch.bincount(x_s, minlength=4).double() / number
        torch.testing.assert_close(shares, expected[token], rtol=0, atol=0.01)
        assert not thinned.open.all(), "some tokens stay without asking the network"


@both
def test_negative_mass_of_an_inconsistent_score_is_clipped(process_class) -> None:
    """A score of 0 everywhere but at the token itself belongs to no law of clean text."""
    process = process_class(3)
    x_t = torch.arange(process.num_states)[process.changeable(torch.arange(process.num_states))]
    score = torch.full((len(x_t), process.num_states), -50.0, dtype=torch.float64)
    score = score.scatter(-1, x_t[:, None], 0.0)
    s, t = (torch.full((len(x_t),), level, dtype=torch.float64) for level in (0.9, 0.2))
    reverse = process.reverse(score, x_t, s, t)
    assert (reverse >= 0).all()
    assert (reverse.sum(-1) > 0).all()
