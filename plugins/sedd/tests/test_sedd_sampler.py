"""Steps from scores: analytic is the published step and the ancestral one, euler its tangent."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from platform_core import rows
from platform_core.categorical import CleanOnly, KeepAll, Nucleus
from platform_core.model import MIN_ALPHA, above_noise
from platform_core.parameterization import Mean
from platform_core.process import LOG_ZERO, Absorbing, Interpolating, Uniform
from platform_core.sampler import Ancestral, Prompt, even_times
from platform_core.schedule import Cosine, LogLinear, Polynomial
from platform_core.testing.allocations import LargestTensor
from platform_core.testing.toy import (
    ExactScore,
    TinyNetwork,
    all_sequences,
    chi_square,
    double,
    exact_model,
    index_of,
    model,
    one_token_law,
    random_law,
    seeded,
    two_token_law,
)
from platform_sedd.parameterization import Score, truncate
from platform_sedd.process import AbsorbingSedd, UniformSedd
from platform_sedd.sampler import Analytic, ByScore, Euler, tangent
from platform_sedd.schedule import Geometric

KINDS = {"absorbing": AbsorbingSedd, "uniform": UniformSedd}

both = pytest.mark.parametrize("states", ["absorbing", "uniform"])
samplers = pytest.mark.parametrize("sampler", [Analytic, Euler])
finals = pytest.mark.parametrize("final", ["ancestral", "greedy", "none"])


def noise(process: Interpolating) -> Tensor:
    states = torch.arange(process.num_states)
    return states[process.changeable(states)]


def scores(process: Interpolating, alpha: Tensor, seed: int) -> Tensor:
    """Scores of unnormalised weights, a row for each state that noise can have reached."""
    x_t = noise(process)
    logits = 2 * torch.randn(len(x_t), process.num_states, generator=seeded(seed)).double()
    return Score().log_score(logits, x_t, alpha, process)


def published_step(log_score: Tensor, x_t: Tensor, drop: float, process: Interpolating) -> Tensor:
    """Staggered score times transposed transition, for a drop of sigma: as SEDD's code has them."""
    score, here = log_score.exp(), torch.eye(process.num_states).double()[x_t]
    total = score.sum(-1, keepdim=True)
    if isinstance(process, Uniform):
        e, number = math.exp(-drop), process.num_states
        staggered = (e - 1) / (number * e) * total + score / e
        return staggered * (e * here + (1 - e) / number)
    staggered = math.exp(drop) * score
    staggered[..., -1] += (1 - math.exp(drop)) * total[..., 0]
    is_mask = (x_t == process.num_states - 1).double()[:, None]
    return staggered * (math.exp(-drop) * here + (1 - math.exp(-drop)) * is_mask)


@both
@given(
    num_tokens=st.integers(2, 6),
    levels=st.tuples(st.floats(1e-3, 0.99), st.floats(1e-3, 1)).map(sorted),
    seed=st.integers(0, 1000),
)
def test_the_analytic_law_is_the_published_one(states, num_tokens, levels, seed):
    process = KINDS[states](num_tokens)
    alpha_t, alpha_s = (double(level) for level in levels)
    log_score, x_t = scores(process, alpha_t, seed), noise(process)
    law = Analytic().law(log_score, x_t, alpha_s, alpha_t, process)
    expected = published_step(log_score, x_t, math.log(alpha_s / alpha_t), process)
    torch.testing.assert_close(law, expected.clamp_min(0), rtol=1e-10, atol=1e-12)


@both
@given(
    num_tokens=st.integers(2, 6),
    levels=st.tuples(st.floats(1e-3, 0.99), st.floats(1e-3, 1)).map(sorted),
    seed=st.integers(0, 1000),
)
@pytest.mark.parametrize("truncation", [KeepAll(), Nucleus(0.6)])
def test_analytic_is_ancestral(states, truncation, num_tokens, levels, seed):
    """The law from the score of a prediction is the posterior of that prediction."""
    process = KINDS[states](num_tokens)
    alpha_t, alpha_s = (double(level) for level in levels)
    x_t = noise(process)
    logits = torch.randn(len(x_t), process.num_states, generator=seeded(seed)).double()
    log_x0 = CleanOnly(num_tokens, KeepAll())(logits).clamp_min(LOG_ZERO)
    score = process.log_score(log_x0, x_t, alpha_t)
    score = truncate(score, x_t, alpha_t, process=process, truncation=truncation)
    law = Analytic().law(score, x_t, alpha_s, alpha_t, process)
    posterior = process.posterior(truncation(log_x0), x_t, alpha_s, alpha_t)
    torch.testing.assert_close(law, posterior, rtol=0, atol=1e-11)


def test_the_printed_steps():
    process, x_t = AbsorbingSedd(3), torch.tensor([3])
    log_x0 = torch.cat((double(0.2, 0.5, 0.3).log(), double(LOG_ZERO)))[None]
    score = process.log_score(log_x0, x_t, double(0.4))
    for alpha_s, expected in ((0.7, (0.10, 0.25, 0.15, 0.5)), (1.0, (0.2, 0.5, 0.3, 0))):
        law = Analytic().law(score, x_t, double(alpha_s), double(0.4), process)
        torch.testing.assert_close(law[0], double(*expected), rtol=0, atol=1e-14)


@pytest.mark.slow
@both
@finals
@pytest.mark.parametrize("top_p", [1.0, 0.7])
def test_analytic_samples_are_those_of_ancestral_from_the_same_score(states, final, top_p):
    torch.manual_seed(0)
    process = KINDS[states](5)
    built = model(process, TinyNetwork(process.num_states), LogLinear(), Score())
    one, other = (
        sampler(steps=6, final=final, top_p=top_p)(built, (16, 8), seeded(1))
        for sampler in (Analytic, Ancestral)
    )
    assert torch.equal(one.tokens, other.tokens)
    assert one.nfe == other.nfe


def kernel(sampler: ByScore, log_score: Tensor, states: Tensor, levels, process) -> Tensor:
    """Chances `[x_t, x_s]` of one step of whole sequences."""
    alpha_s, alpha_t = (above_noise(level) for level in levels)
    score = truncate(log_score, states, alpha_t, process=process, truncation=sampler.truncation)
    law = sampler.law(score, states, alpha_s, alpha_t, process)
    law = law / law.sum(-1, keepdim=True)
    stay = torch.eye(process.num_states).double()[states]
    law = torch.where(process.changeable(states)[..., None], law, stay)
    chances = [law[:, place][:, states[:, place]] for place in range(states.shape[1])]
    return torch.stack(chances).prod(0)


def next_level(sampler: ByScore, schedule, s: Tensor, t: Tensor) -> Tensor:
    """The signal level that a step from time t to time s aims at."""
    if not isinstance(sampler, Euler):
        return schedule.alpha(s)
    at_t = t.clone().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(schedule.alpha(at_t).sum(), at_t)
    return schedule.alpha(t) + slope * (s - t)


def chain(sampler: ByScore, law, process: Interpolating, schedule) -> Tensor:
    """Law over `all_sequences` that a sampler with the exact score draws from."""
    states = all_sequences(process.num_states, law.length)
    reached = process.prior(states).prod(-1)

    def exact(alpha: Tensor) -> Tensor:
        log_x0 = law.log_x0(states, above_noise(alpha), process)
        return process.log_score(log_x0, states, above_noise(alpha))

    times = even_times(sampler.steps, torch.device("cpu")).flatten()
    for t, s in zip(times[:-1], times[1:], strict=True):
        levels = next_level(sampler, schedule, s, t), schedule.alpha(t)
        reached = reached @ kernel(sampler, exact(levels[1]), states, levels, process)
    levels = torch.tensor(1.0).double(), schedule.alpha(times[-1])
    return reached @ kernel(Analytic(), exact(levels[1]), states, levels, process)


def data_law(law, process: Interpolating) -> Tensor:
    states = all_sequences(process.num_states, law.length)
    clean = (states < law.num_tokens).all(-1)
    return torch.zeros(len(states)).double().masked_scatter(clean, law.probs.flatten())


def distance(one: Tensor, other: Tensor) -> float:
    """Total variation."""
    return float((one - other).abs().sum() / 2)


@pytest.mark.slow
@both
@pytest.mark.parametrize("law", [one_token_law(), random_law(6, 1, seed=2)])
@pytest.mark.parametrize("steps", [1, 2, 5, 50])
@pytest.mark.parametrize("schedule", [LogLinear(eps=0), Cosine(eps=0)])
def test_one_position_returns_the_data_law_in_any_number_of_analytic_steps(
    states, law, steps, schedule
):
    """But for the first step, which begins at a signal level of 1e-4 instead of 0."""
    process = KINDS[states](law.num_tokens)
    reached = chain(Analytic(steps), law, process, schedule)
    within = 1e-12 if states == "absorbing" else 1e-4
    assert distance(reached, data_law(law, process)) < within


@pytest.mark.slow
@both
def test_two_positions_approach_the_data_law_as_analytic_steps_grow(states: str):
    law = two_token_law()
    process, data = KINDS[states](3), data_law(law, KINDS[states](3))
    few, many = (distance(chain(Analytic(n), law, process, LogLinear()), data) for n in (1, 128))
    assert few > 0.1
    assert many < 0.01


@pytest.mark.slow
@both
def test_euler_approaches_the_data_law_at_first_order(states: str):
    law = one_token_law()
    process, data = KINDS[states](3), data_law(law, KINDS[states](3))
    steps = (64, 128, 256)
    errors = [distance(chain(Euler(n), law, process, Cosine()), data) for n in steps]
    if states == "absorbing":
        assert max(errors) < 1e-12, "the one token is drawn when its mask goes, at any time"
    else:
        ratios = [coarse / fine for coarse, fine in zip(errors[:-1], errors[1:], strict=True)]
        assert ratios == pytest.approx([2, 2], abs=0.2)
        assert errors[-1] < 0.01


def test_under_masks_and_a_straight_schedule_euler_is_analytic():
    process, schedule = AbsorbingSedd(4), LogLinear(eps=0)
    t, s = double(0.6), double(0.35)
    x_t, log_x0 = noise(process), random_law(4, 1, seed=0).probs.log()[None]
    log_x0 = torch.nn.functional.pad(log_x0, (0, 1), value=LOG_ZERO)
    score = process.log_score(log_x0, x_t, schedule.alpha(t))
    laws = [
        sampler.law(score, x_t, next_level(sampler, schedule, s, t), schedule.alpha(t), process)
        for sampler in (Euler(), Analytic())
    ]
    torch.testing.assert_close(*laws, rtol=0, atol=1e-14)


@both
def test_euler_steps_that_leave_more_than_there_is_leave_nothing(states: str):
    process = KINDS[states](4)
    log_score, x_t = scores(process, double(0.01), seed=0) + 3, noise(process)
    log_score = log_score.scatter(-1, x_t[:, None], 0.0)
    law = Euler().law(log_score, x_t, double(3), double(0.01), process)
    jumps = (law.gather(-1, x_t[:, None]) == 0).flatten()
    assert jumps.any()
    assert (law >= 0).all()


curves = pytest.mark.parametrize(
    "schedule",
    [
        LogLinear(),
        Cosine(eps=0),
        Cosine(),
        Polynomial(3.0, eps=0),
        Polynomial(0.5, eps=0),
        Geometric(),
        Geometric(5.0, 40.0),
    ],
    ids=["straight", "cosine-0", "cosine", "cubic", "root", "geometric", "deep"],
)


@curves
@pytest.mark.parametrize("steps", [2, 7])
def test_a_tangent_touches_the_curve_where_the_step_begins(schedule, steps):
    t, s = even_times(steps, torch.device("cpu"))[:-1], even_times(steps, torch.device("cpu"))[1:]
    torch.testing.assert_close(tangent(schedule, s, t), next_level(Euler(), schedule, s, t))
    torch.testing.assert_close(tangent(schedule, t, t), schedule.alpha(t))


@both
@curves
@samplers
@pytest.mark.parametrize("steps", [1, 5])
def test_every_law_is_of_a_step_to_less_noise_and_has_no_negative_chance(
    states, schedule, sampler, steps, monkeypatch
):
    """Also where a schedule begins below the lowest level that a network is told, or a tangent is
    level.
    """
    seen, law = [], sampler.law

    def look(self, log_score, x_t, alpha_s, alpha_t, process):
        found = law(self, log_score, x_t, alpha_s, alpha_t, process)
        seen.append((found, alpha_s, alpha_t))
        return found

    monkeypatch.setattr(sampler, "law", look)
    process = KINDS[states](3)
    built = model(process, ExactScore(two_token_law(), process), schedule, Score())
    sampler(steps=steps)(built, (50, 2), seeded())
    assert seen
    for found, alpha_s, alpha_t in seen:
        assert (found >= 0).all()
        assert (found.sum(-1) > 0).all()
        assert (alpha_s >= alpha_t).all()
        assert (alpha_t >= MIN_ALPHA).all()


@both
@curves
def test_a_score_is_reversed_to_less_noise_only(states, schedule, monkeypatch):
    process = KINDS[states](3)
    seen, reverse = [], process.reverse

    def look(log_score, x_t, alpha_s, alpha_t):
        seen.append((alpha_s, alpha_t))
        return reverse(log_score, x_t, alpha_s, alpha_t)

    monkeypatch.setattr(process, "reverse", look)
    built = model(process, ExactScore(two_token_law(), process), schedule, Score())
    Ancestral(steps=6)(built, (50, 2), seeded())
    assert seen
    assert all((t >= MIN_ALPHA).all() and (t <= s).all() for s, t in seen)


@both
@samplers
@pytest.mark.parametrize("top_p", [1.0, 0.6])
def test_samplers_draw_from_the_enumerated_chain(states, sampler, top_p):
    require_the_chain(states, sampler, LogLinear(), top_p)


@both
@samplers
@curves
def test_samplers_draw_from_the_enumerated_chain_of_any_schedule(states, sampler, schedule):
    require_the_chain(states, sampler, schedule, 1.0)


def require_the_chain(states, sampler, schedule, top_p):
    law = two_token_law()
    process = KINDS[states](3)
    built = model(process, ExactScore(law, process), schedule, Score())
    walk = sampler(steps=3, top_p=top_p, final="none")
    tokens = walk(built, (20_000, 2), seeded(3)).tokens
    expected = chain_without_finish(walk, law, process, schedule)
    assert chi_square(index_of(tokens, process.num_states), expected) > 0.01


def chain_without_finish(sampler: ByScore, law, process: Interpolating, schedule) -> Tensor:
    states = all_sequences(process.num_states, law.length)
    reached = process.prior(states).prod(-1)
    times = even_times(sampler.steps, torch.device("cpu")).flatten()
    for t, s in zip(times[:-1], times[1:], strict=True):
        levels = next_level(sampler, schedule, s, t), schedule.alpha(t)
        log_x0 = law.log_x0(states, above_noise(levels[1]), process)
        score = process.log_score(log_x0, states, above_noise(levels[1]))
        reached = reached @ kernel(sampler, score, states, levels, process)
    return reached


@pytest.mark.slow
@pytest.mark.parametrize("process_class", [Absorbing, Uniform])
@samplers
def test_networks_that_predict_clean_tokens_are_sampled_too(process_class, sampler):
    law = two_token_law()
    built = exact_model(law, process_class, LogLinear(), Mean())
    tokens = sampler(steps=64)(built, (3_000, 2), seeded(1)).tokens
    assert chi_square(index_of(tokens, law.num_tokens), law.probs.flatten()) > 0.01


def tiny_model(process: Interpolating, *, bias: float = 0.0):
    torch.manual_seed(0)
    backbone = TinyNetwork(process.num_states)
    with torch.no_grad():
        backbone.head.bias += bias
    return model(process, backbone, LogLinear(), Score()), backbone


@samplers
@pytest.mark.parametrize("final", ["ancestral", "greedy"])
@pytest.mark.parametrize("bias", [-3.0, 3.0])
def test_no_masks_are_left_however_the_weights_sum(sampler, final, bias):
    built, _ = tiny_model(AbsorbingSedd(5), bias=bias)
    tokens = sampler(steps=4, final=final)(built, (64, 16), seeded()).tokens
    assert tokens.min() >= 0
    assert tokens.max() < 5


@both
@samplers
def test_prompts_stay_in_place(states, sampler):
    built, _ = tiny_model(KINDS[states](5))
    tokens = torch.randint(5, (8, 6), generator=seeded(1))
    prompt = Prompt(tokens, torch.rand(8, 6, generator=seeded(2)) < 0.4)
    sample = sampler(steps=5)(built, (8, 6), seeded(), prompt)
    assert torch.equal(sample.tokens[prompt.fixed], tokens[prompt.fixed])
    assert not torch.equal(sample.tokens, tokens)


@samplers
def test_a_prompt_of_everything_needs_no_network(sampler):
    built, backbone = tiny_model(UniformSedd(5))
    tokens = torch.randint(5, (2, 4), generator=seeded())
    everything = Prompt(tokens, torch.ones(2, 4).bool())
    sample = sampler(steps=3)(built, (2, 4), seeded(), everything)
    assert torch.equal(sample.tokens, tokens)
    assert sample.nfe == backbone.calls == 0


@both
@samplers
@finals
def test_nfe_is_the_number_of_calls_of_the_network(states, sampler, final):
    built, backbone = tiny_model(KINDS[states](5))
    sample = sampler(steps=7, final=final)(built, (4, 2), seeded())
    assert sample.nfe == backbone.calls <= 7 + (final != "none")


@both
@samplers
def test_equal_seeds_draw_equal_samples(states, sampler):
    built, _ = tiny_model(KINDS[states](5))
    one, same, other = (sampler(steps=4)(built, (4, 8), seeded(n)).tokens for n in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.slow
@both
@samplers
def test_sampling_makes_no_tensor_of_positions_by_states(states, sampler, monkeypatch):
    built, _ = tiny_model(KINDS[states](1007))
    number = built.process.num_states
    monkeypatch.setattr(rows, "CHUNK_ELEMENTS", 6 * number)
    with LargestTensor() as made:
        sampler(steps=2)(built, (16, 32), seeded())
    assert made.elements < 16 * 32 * number / 50


@samplers
def test_fewer_than_one_step_is_refused(sampler):
    with pytest.raises(ValueError, match="at least 1"):
        sampler(steps=0)
