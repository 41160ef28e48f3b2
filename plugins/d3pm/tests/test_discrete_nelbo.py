"""The bound of T steps: tight where it should be, printed values, convergence, all steps drawn."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from platform_core import rows
from platform_core.draws import Draws
from platform_core.objective import Nelbo
from platform_core.process import Absorbing, Uniform
from platform_core.sampler import Ancestral
from platform_core.schedule import Cosine, LogLinear, Polynomial
from platform_core.testing.allocations import LargestTensor
from platform_core.testing.toy import (
    ExactDenoiser,
    TinyNetwork,
    all_sequences,
    chain_law,
    exact_model,
    integrated_bound,
    model,
    one_token_law,
    random_law,
    transition,
    two_token_law,
)
from platform_core.types import Batch
from platform_d3pm.objective import DiscreteNelbo
from platform_d3pm.process import AbsorbingD3pm, D3pm, UniformD3pm

KINDS = {"absorbing": AbsorbingD3pm, "uniform": UniformD3pm}

both = pytest.mark.parametrize("states", ["absorbing", "uniform"])
TIGHT = {"rtol": 1e-9, "atol": 1e-10}


def exact(law, states: str, num_steps: int, schedule=None) -> DiscreteNelbo:
    process = KINDS[states]
    return DiscreteNelbo(exact_model(law, process, schedule), num_steps)


def tiny(num_tokens: int, states: str, **options) -> DiscreteNelbo:
    torch.manual_seed(0)
    process = KINDS[states](num_tokens)
    return DiscreteNelbo(model(process, TinyNetwork(process.num_states), LogLinear()), **options)


def everything(x0: Tensor) -> Tensor:
    return torch.ones_like(x0, dtype=torch.bool)


def enumerated(objective: DiscreteNelbo, x0: Tensor) -> Tensor:
    """The bound of each sequence: every step, every x_t."""
    process, steps = objective.denoiser.process, objective.num_steps
    states = all_sequences(process.num_states, x0.shape[1])
    middle = (torch.arange(steps, dtype=torch.float64)[:, None] + 0.5) / steps
    total = torch.zeros(len(x0), dtype=torch.float64)
    for alpha, slope in zip(
        objective.schedule.alpha(middle), objective.schedule.slope(middle), strict=True
    ):
        told = -alpha.clamp_min(1e-12).log().expand(len(states), 1)
        logits = objective.model.backbone(states, told).flatten(0, 1)
        for number, clean in enumerate(x0):
            chance = transition(process, clean, states, alpha).prod(-1)
            columns = (states, clean.expand_as(states))
            flat = [column.reshape(-1) for column in columns]
            level = [value.expand(flat[0].shape) for value in (alpha, slope)]
            f = objective.row_loss(logits, *flat, *level).view(states.shape).sum(-1)
            total[number] += (chance * f)[chance > 0].sum() / steps
    return total


@both
def test_every_object_is_of_one_of_the_two_kinds(states: str):
    process = KINDS[states](5)
    assert isinstance(process, D3pm)
    assert isinstance(process, {"absorbing": Absorbing, "uniform": Uniform}[states])
    assert process.time_conditioned
    assert vars(copy.deepcopy(process)) == vars(process)


@pytest.mark.slow
@both
@pytest.mark.parametrize("num_steps", [1, 2, 5, 50])
@pytest.mark.parametrize("law", [one_token_law(), random_law(6, 1, seed=2)])
@pytest.mark.parametrize("schedule", [LogLinear(0), LogLinear(1e-3), Cosine(0.2), Polynomial(2)])
def test_the_bound_of_exact_predictions_of_one_token_is_exact_for_every_t(
    states, num_steps, law, schedule
):
    x0 = law.sequences()
    bound = enumerated(exact(law, states, num_steps, schedule), x0)
    torch.testing.assert_close(bound, -law.log_prob(x0), **TIGHT)


@pytest.mark.slow
@given(num_tokens=st.integers(2, 6), num_steps=st.integers(1, 8), seed=st.integers(0, 1000))
@both
def test_predictions_that_ignore_the_noise_cost_their_log_loss(states, num_tokens, num_steps, seed):
    law = random_law(num_tokens, 1, seed=seed)
    x0 = law.sequences()
    bound = enumerated(exact(law, states, num_steps), x0)
    torch.testing.assert_close(bound, -law.log_prob(x0), **TIGHT)


@pytest.mark.parametrize(
    ("num_steps", "expected"),
    [(1, 1.82904837), (2, 1.77785903), (4, 1.75226435), (16, 1.73306835), (256, 1.72706960)],
)
def test_the_printed_bounds_of_masks_in_so_many_steps(num_steps: int, expected: float):
    bound = enumerated(exact(two_token_law(), "absorbing", num_steps), torch.tensor([[1, 2]]))
    assert bound.item() == pytest.approx(expected, abs=6e-9)


@pytest.mark.slow
@both
def test_the_bound_falls_to_the_continuous_one_as_steps_grow(states: str):
    """At first order in 1 / T, for exact predictions to -log p."""
    law, x0 = two_token_law(), two_token_law().sequences()
    process = KINDS[states]
    continuous = integrated_bound(Nelbo(exact_model(law, process)), x0)
    torch.testing.assert_close(continuous, -law.log_prob(x0), **TIGHT)
    weights = law.log_prob(x0).exp()

    def excess(num_steps: int) -> float:
        return float(weights @ (enumerated(exact(law, states, num_steps), x0) - continuous))

    excesses = [excess(number) for number in (1, 8, 64, 128)]
    assert excesses == sorted(excesses, reverse=True)
    assert excesses[-1] > 0
    assert excesses[2] / excesses[3] == pytest.approx(2, abs=0.1)
    assert excesses[-1] < 2e-3


class Curious(ExactDenoiser):
    """Predicts from a wrong noise level, and leaves some chance for a mask."""

    def encode(self, inputs, sigma):
        logits = super().encode(inputs, sigma).clone()
        logits[..., self.process.vocab_size :] = -1.0
        return 0.7 * logits


@pytest.mark.slow
@both
def test_for_any_predictions_it_tends_to_the_generic_bound(states: str):
    law = two_token_law()
    process = KINDS[states](3)
    built = model(process, Curious(law, process))
    x0 = torch.tensor([[1, 2], [0, 0]])
    continuous = integrated_bound(Nelbo(built), x0)
    gaps = [enumerated(DiscreteNelbo(built, number), x0) - continuous for number in (64, 128)]
    assert (gaps[1].abs() < 0.02 * continuous).all()
    assert (gaps[1].abs() < 0.7 * gaps[0].abs()).all()


def listen(objective: DiscreteNelbo, monkeypatch) -> list[Tensor]:
    """The levels at which the noise is drawn."""
    drawn, corrupt = [], objective.denoiser.process.corrupt

    def keep(x0: Tensor, alpha: Tensor, generator: torch.Generator) -> Tensor:
        drawn.append(alpha)
        return corrupt(x0, alpha, generator)

    monkeypatch.setattr(objective.denoiser.process, "corrupt", keep)
    return drawn


@both
@pytest.mark.parametrize("training", [True, False])
def test_every_step_is_drawn_and_equally_often(states, training, monkeypatch):
    """T sequences of one batch have T different levels: the schedule's at 1 / T to 1, then 0."""
    objective = tiny(5, states, num_steps=40)
    drawn = listen(objective, monkeypatch)
    x0 = torch.zeros(40, 3, dtype=torch.long)
    draws = Draws.derive("test", step=3, first=0, total=40)
    call = objective if training else objective.bound
    call(Batch(x0, everything(x0)), draws)
    expected = LogLinear().alpha(torch.arange(1, 41, dtype=torch.float64) / 40)
    expected[-1] = 0
    found = torch.cat([level.flatten() for level in drawn]).sort(descending=True).values
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)


@both
@pytest.mark.parametrize("schedule", [LogLinear(1e-3), Cosine(1e-3), Polynomial(0.5)])
def test_alpha_s_is_the_schedules_at_the_time_before(states, schedule, monkeypatch):
    objective = exact(one_token_law(), states, 10, schedule)
    pairs = []
    divergence = objective.divergence

    def keep(log_x0, x_t, x0, alpha_s, alpha_t):
        pairs.extend(zip(alpha_t.tolist(), alpha_s.tolist(), strict=True))
        return divergence(log_x0, x_t, x0, alpha_s, alpha_t)

    objective.divergence = keep
    x0 = torch.zeros(400, 1, dtype=torch.long)
    objective.bound(Batch(x0, everything(x0)), Draws.derive("test", step=0, first=0, total=400))
    grid = torch.linspace(0, 1, 11, dtype=torch.float64)
    level = [1.0, *schedule.alpha(grid[1:-1]).tolist(), 0.0]
    found = sorted({(round(t, 12), round(s, 12)) for t, s in pairs})
    expected = sorted((round(t, 12), round(s, 12)) for s, t in zip(level, level[1:], strict=False))
    assert found == expected


@pytest.mark.slow
@both
def test_the_estimate_is_unbiased(states: str):
    law = two_token_law()
    objective = exact(law, states, 4)
    x0 = law.sequences().repeat(6, 1)
    estimates = []
    for seed in range(200):
        draws = Draws.derive("test", seed, step=0, first=0, total=len(x0))
        loss = objective.bound(Batch(x0, everything(x0)), draws)
        estimates.append(loss.per_token.double().sum(-1).view(6, 9).mean(0))
    found = torch.stack(estimates)
    expected = enumerated(objective, law.sequences())
    error = found.std(0) / len(estimates) ** 0.5
    assert ((found.mean(0) - expected).abs() < 3.5 * error).all()


@both
def test_both_protocols_of_evaluation_are_the_same(states: str):
    objective = tiny(5, states, num_steps=7)
    x0 = torch.randint(5, (6, 8), generator=torch.Generator().manual_seed(0))
    one, other = (
        objective.bound(
            Batch(x0, everything(x0)), Draws.derive("test", step=0, first=0, total=6), protocol
        )
        for protocol in ("exact", "published")
    )
    assert torch.equal(one.per_token, other.per_token)


@both
def test_the_auxiliary_loss_is_in_training_alone(states: str):
    x0 = torch.randint(5, (6, 8), generator=torch.Generator().manual_seed(0))

    def losses(auxiliary: float) -> tuple[Tensor, Tensor]:
        objective = tiny(5, states, num_steps=50, auxiliary=auxiliary)
        draws = [Draws.derive("test", step=0, first=0, total=6) for _ in range(2)]
        trained = objective(Batch(x0, everything(x0)), draws[0]).per_token
        return trained, objective.bound(Batch(x0, everything(x0)), draws[1]).per_token

    (plain, bound), (more, same) = losses(0.0), losses(0.5)
    assert torch.equal(plain, bound)
    assert torch.equal(bound, same)
    counted = plain != 0
    assert (more > plain)[counted].all()
    assert torch.equal(more[~counted], plain[~counted])


@both
def test_the_auxiliary_loss_is_the_weighted_cross_entropy(states: str):
    objective = tiny(5, states, num_steps=50, auxiliary=0.5)
    process = objective.denoiser.process
    logits = torch.randn(4, process.num_states, generator=torch.Generator().manual_seed(0)).double()
    x0 = torch.arange(4)
    x_t = process.sample_prior((4,), torch.Generator().manual_seed(0))
    levels = (torch.full((4,), value, dtype=torch.float64) for value in (0.4, -1.0))
    columns = (x_t, x0, *levels)
    extra = objective.descended(logits, *columns) - objective.row_loss(logits, *columns)
    expected = -0.5 * logits.log_softmax(-1).gather(-1, x0[:, None]).squeeze(-1)
    torch.testing.assert_close(extra, expected, rtol=1e-10, atol=1e-10)


def test_clean_tokens_are_never_drawn_again(monkeypatch):
    """The network gives every token a chance everywhere; published code would redraw from it."""
    objective = tiny(5, "absorbing")
    read, encode = [], objective.model.backbone.encode
    monkeypatch.setattr(
        objective.model.backbone, "encode", lambda x, sigma: read.append(x) or encode(x, sigma)
    )
    read.append(Ancestral(steps=20)(objective.model, (16, 8), torch.Generator().manual_seed(0))[0])
    assert len(read) > 10
    for earlier, later in zip(read[:-1], read[1:], strict=True):
        clean = earlier != 5
        assert torch.equal(earlier[clean], later[clean])


@both
@pytest.mark.parametrize("steps", [1, 3])
def test_ancestral_samples_of_the_exact_model_have_the_data_law(states: str, steps: int):
    law = one_token_law()
    process = KINDS[states](3)
    alphas = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    reached = chain_law(law, process, alphas)
    torch.testing.assert_close(reached[:3], law.probs, rtol=0, atol=1e-13)


@both
def test_the_bound_is_above_minus_log_p_of_the_samples_of_as_many_steps(states: str):
    law = two_token_law()
    process = KINDS[states](3)
    x0 = law.sequences()
    for steps in (1, 2, 8):
        alphas = torch.linspace(0, 1, steps + 1, dtype=torch.float64).clamp_min(1e-9)
        clean = (all_sequences(process.num_states, 2) < 3).all(-1)
        drawn = chain_law(law, process, alphas)[clean]
        bound = enumerated(exact(law, states, steps), x0)
        assert (bound >= -drawn.log() - 1e-7).all()


@pytest.mark.slow
@both
def test_a_training_step_makes_no_tensor_of_positions_by_states(states, monkeypatch):
    objective = tiny(1007, states, auxiliary=0.1)
    number = objective.denoiser.process.num_states
    x0 = torch.randint(1007, (16, 32), generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(rows, "CHUNK_ELEMENTS", 6 * number)
    with LargestTensor() as made:
        draws = Draws.derive("test", step=0, first=0, total=16)
        objective(Batch(x0, everything(x0)), draws).total.backward()
    assert made.elements < x0.numel() * number / 50


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_steps": 0}, "num_steps is 0; it must be at least 1, for example 1000"),
        ({"auxiliary": -0.1}, "auxiliary is -0.1; it must be at least 0"),
        ({"auxiliary": float("nan")}, "auxiliary is nan"),
        ({"auxiliary": float("inf")}, "auxiliary is inf"),
    ],
)
def test_bad_options_are_refused_with_values_that_work(options, said):
    with pytest.raises(ValueError, match=said):
        tiny(5, "absorbing", **options)


@both
def test_it_is_built_without_memory(states: str):
    with torch.device("meta"):
        objective = tiny(5, states)
    assert objective.schedule.alpha(torch.tensor([[0.5]], dtype=torch.float64)).item() > 0.4
