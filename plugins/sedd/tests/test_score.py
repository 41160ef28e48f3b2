"""The score of unnormalised weights: its limits, its truncation, its steps; SEDD's two noises."""

import copy
import inspect
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from platform_core.categorical import CleanOnly, KeepAll, Nucleus, TopK
from platform_core.objective import score_entropy
from platform_core.parameterization import Mean
from platform_core.process import Absorbing, Interpolating, Uniform, log_one_hot
from platform_core.testing.toy import chi_square, double
from platform_sedd.parameterization import Score, truncate
from platform_sedd.process import AbsorbingSedd, Sedd, UniformSedd

KINDS = {"absorbing": AbsorbingSedd, "uniform": UniformSedd}

both = pytest.mark.parametrize("states", ["absorbing", "uniform"])
levels = st.tuples(st.floats(1e-4, 0.999), st.floats(1e-4, 1)).map(sorted)
SCORE = Score()


def noise(process: Interpolating) -> torch.Tensor:
    """States that noise can have reached, one per row."""
    states = torch.arange(process.num_states)
    return states[process.changeable(states)]


def random_logits(process: Interpolating, seed: int, dtype=torch.float64) -> torch.Tensor:
    shape = len(noise(process)), process.num_states
    return 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def as_logits(log_x0: torch.Tensor, process: Interpolating) -> torch.Tensor:
    """What a network says whose weights are a law."""
    return log_x0 + math.log(process.vocab_size)


def random_law(process: Interpolating, seed: int) -> torch.Tensor:
    """log x_0 with nothing on the mask."""
    clean = CleanOnly(process.vocab_size, KeepAll())
    return clean(random_logits(process, seed)).clamp_min(-1e6)


@both
def test_every_object_is_of_one_of_the_two_kinds(states: str):
    kind = {"absorbing": Absorbing, "uniform": Uniform}[states]
    process = KINDS[states](5)
    assert isinstance(process, kind)
    assert isinstance(process, Sedd)
    assert process.time_conditioned
    assert process.num_states == kind(5).num_states
    same = copy.deepcopy(process)
    assert type(same) is type(process)
    assert vars(same) == vars(process)


def test_masks_are_the_default():
    assert inspect.signature(Sedd).parameters["states"].default == "absorbing"


@given(num_tokens=st.integers(2, 6), alpha=st.floats(1e-6, 1 - 1e-6), seed=st.integers(0, 1000))
def test_at_a_mask_the_score_is_the_networks_scaled_by_sigma(num_tokens, alpha, seed):
    process, sigma = AbsorbingSedd(num_tokens), -math.log(alpha)
    logits = random_logits(process, seed)
    score = SCORE.log_score(logits, noise(process), double(alpha), process)
    scale = math.log(math.expm1(sigma)) + math.log(num_tokens)
    torch.testing.assert_close(score[:, :-1], logits[:, :-1] - scale, rtol=0, atol=1e-9)
    assert (score[:, -1] == 0).all()


@both
@given(alpha=st.floats(1e-6, 1 - 1e-6))
def test_logits_of_zero_are_the_score_of_a_network_that_knows_nothing(states, alpha):
    process = KINDS[states](4)
    x_t = noise(process)
    logits = torch.zeros(len(x_t), process.num_states, dtype=torch.float64)
    score = SCORE.log_score(logits, x_t, double(alpha), process)
    even = CleanOnly(4, KeepAll())(logits).clamp_min(-1e6)
    expected = process.log_score(even, x_t, double(alpha))
    torch.testing.assert_close(score, expected, rtol=0, atol=1e-9)


@both
@given(alpha=st.floats(1e-6, 1 - 1e-6), seed=st.integers(0, 1000))
def test_weights_that_are_a_law_have_the_score_of_its_mean(states, alpha, seed):
    process = KINDS[states](4)
    x_t, log_x0 = noise(process), random_law(process, seed)
    score = SCORE.log_score(as_logits(log_x0, process), x_t, double(alpha), process)
    expected = Mean().log_score(log_x0, x_t, double(alpha), process)
    torch.testing.assert_close(score, expected, rtol=0, atol=1e-9)


def test_without_signal_uniform_scores_are_one_so_that_the_bound_is_finite():
    """The integrand falls with alpha; that of logits taken for the score grows as 1 / alpha."""
    process = UniformSedd(4)
    x_t = noise(process)
    logits, x0 = random_logits(process, seed=0), torch.zeros_like(x_t)
    for alpha in (1e-3, 1e-6, 1e-9):
        level = double(alpha)
        true = process.log_score(log_one_hot(x0, 4, torch.float64), x_t, level)
        f = process.rate(x_t, level, double(-1)) * score_entropy(
            SCORE.log_score(logits, x_t, level, process), true
        )
        assert f.max() < 1e3 * alpha
        unscaled = logits - logits.gather(-1, x_t[:, None])
        f = process.rate(x_t, level, double(-1)) * score_entropy(unscaled, true)
        assert f.max() > 0.1 / alpha


@both
@given(levels=levels, seed=st.integers(0, 1000))
@pytest.mark.parametrize("truncation", [Nucleus(0.6), TopK(2), CleanOnly(4, Nucleus(0.7))])
def test_truncation_is_that_of_the_predicted_law(states, truncation, levels, seed):
    alpha = double(levels[0])
    process = KINDS[states](4)
    x_t, log_x0 = noise(process), random_law(process, seed)
    score = process.log_score(log_x0, x_t, alpha)
    cut = truncate(score, x_t, alpha, process=process, truncation=truncation)
    expected = process.log_score(truncation(log_x0).clamp_min(-1e6), x_t, alpha)
    torch.testing.assert_close(cut.exp(), expected.exp(), rtol=1e-9, atol=1e-9)


@both
@given(levels=levels, seed=st.integers(0, 1000))
def test_without_truncation_the_score_stays_also_when_it_is_that_of_no_law(states, levels, seed):
    alpha = double(levels[0])
    process = KINDS[states](4)
    x_t = noise(process)
    score = SCORE.log_score(random_logits(process, seed), x_t, alpha, process)
    same = truncate(score, x_t, alpha, process=process, truncation=KeepAll())
    torch.testing.assert_close(same.exp(), score.exp(), rtol=1e-10, atol=1e-12)


@both
@pytest.mark.parametrize(("alpha_s", "alpha_t"), [(0.7, 0.4), (1.0, 0.3), (0.2, 1e-4), (0.2, 0.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_step_draws_from_the_analytic_law_of_an_unnormalised_score(
    states, alpha_s, alpha_t, dtype
):
    process = KINDS[states](5)
    s, t = double(alpha_s), double(alpha_t).clamp_min(1e-4)
    for row, x_t in enumerate(noise(process)[:2]):
        logits = random_logits(process, seed=3, dtype=dtype)[:1]
        score = SCORE.log_score(logits.double(), x_t[None], t, process)
        law = process.reverse(score, x_t[None], s, t)[0]
        drawn = SCORE.draw_open(
            logits.expand(20_000, -1),
            x_t.expand(20_000),
            s,
            double(alpha_t),
            process=process,
            truncation=KeepAll(),
            generator=torch.Generator().manual_seed(row),
        )
        assert chi_square(drawn, law / law.sum()) > 0.01


@both
def test_negative_mass_counts_as_nothing(states: str):
    """Weights that sum to 50 leave no chance to stay noise."""
    process = KINDS[states](5)
    x_t = noise(process)[:1]
    logits = torch.full((1, process.num_states), 3.9, dtype=torch.float64)
    logits[:, 1] = 6
    score = SCORE.log_score(logits, x_t, double(0.4), process)
    stagger = process.staggered_score(score.exp(), double(1), double(0.4))
    assert (stagger < 0).any()
    law = process.reverse(score, x_t, double(1), double(0.4))
    assert (law >= 0).all()
    assert (law[stagger < 0] == 0).all()


@both
@given(levels=levels, seed=st.integers(0, 1000))
def test_the_most_likely_token_is_the_mode_of_the_implied_law(states, levels, seed):
    alpha = double(levels[0])
    process = KINDS[states](4)
    x_t, logits = noise(process), random_logits(process, seed)
    logits[:, process.vocab_size :] = 9
    chosen = SCORE.most_likely(logits, x_t, alpha, process)
    score = SCORE.log_score(logits, x_t, alpha, process)
    clean = process.staggered_score(score.exp(), double(1), alpha)[:, : process.vocab_size]
    assert torch.equal(chosen, clean.argmax(-1))
    assert chosen.max() < 4
