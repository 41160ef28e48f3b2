"""The generic bound: tight at exact predictions, unbiased, masked, and never wide in memory.

Expectations over x_t are sums over all states and integrals over alpha are quadratures: nothing
here is Monte Carlo but the test that the estimator is unbiased.
"""

from dataclasses import dataclass
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from platform_core import rows
from platform_core.draws import Draws
from platform_core.objective import DiffusionObjective, Nelbo
from platform_core.process import Absorbing, Interpolating, Uniform
from platform_core.schedule import Cosine, LogLinear, Polynomial, Schedule
from platform_core.testing.allocations import LargestTensor
from platform_core.testing.objective import AtOnce
from platform_core.testing.toy import (
    ExactDenoiser,
    TinyNetwork,
    ToyLaw,
    all_sequences,
    exact_model,
    integrated_bound,
    model,
    one_token_law,
    random_law,
    tanh_sinh,
    transition,
    two_token_law,
)
from platform_core.types import Batch

both = pytest.mark.parametrize("process_class", [Absorbing, Uniform])
TIGHT = {"rtol": 1e-11, "atol": 1e-12}


def everything(x0: Tensor) -> Tensor:
    return torch.ones_like(x0, dtype=torch.bool)


@both
@pytest.mark.parametrize(
    "law",
    [one_token_law(), two_token_law(), random_law(6, 2, seed=5), random_law(2, 3, seed=6)],
    ids=["one token", "two tokens", "six states", "three positions"],
)
def test_the_bound_of_exact_predictions_is_the_negative_log_likelihood(
    process_class: type[Interpolating], law: ToyLaw
):
    objective = Nelbo(exact_model(law, process_class))
    x0 = law.sequences()
    torch.testing.assert_close(integrated_bound(objective, x0), -law.log_prob(x0), **TIGHT)


@both
def test_the_bound_of_exact_predictions_has_the_printed_values(process_class: type[Interpolating]):
    objective = Nelbo(exact_model(two_token_law(), process_class))
    bound = integrated_bound(objective, torch.tensor([[0, 0], [1, 2], [2, 1]]))
    assert bound.tolist() == pytest.approx([2.2438580947, 1.7266696813, 2.9095996225], abs=6e-11)


@pytest.mark.slow
@both
@given(num_tokens=st.integers(2, 6), seed=st.integers(0, 1000))
def test_predictions_that_ignore_the_noise_cost_their_log_loss(process_class, num_tokens, seed):
    """The bound of a z-independent x_theta is -log x_theta[x_0], whatever the data are."""
    law = random_law(num_tokens, 1, seed=seed)
    objective = Nelbo(exact_model(law, process_class))
    x0 = law.sequences()
    torch.testing.assert_close(integrated_bound(objective, x0), -law.log_prob(x0), **TIGHT)


def test_predictions_from_the_position_itself_are_not_tight_under_uniform_noise():
    law, process = one_token_law(), Uniform(3)
    objective = Nelbo(model(process, ExactDenoiser(law, process, own_evidence=True)))
    x0 = law.sequences()
    bound = integrated_bound(objective, x0)
    assert bound.tolist() == pytest.approx([1.15956363, 1.52834844, 2.01560400], abs=6e-9)
    gap = (law.probs * (bound + law.log_prob(x0))).sum().item()
    assert gap == pytest.approx(0.457857386, abs=6e-10)


def test_under_masks_the_position_itself_says_nothing():
    law, process = two_token_law(), Absorbing(3)
    objective = Nelbo(model(process, ExactDenoiser(law, process, own_evidence=True)))
    x0 = law.sequences()
    torch.testing.assert_close(integrated_bound(objective, x0), -law.log_prob(x0), **TIGHT)


@dataclass
class FixedTimes(AtOnce):
    """Draws whose times are given, as fractions of the way from t_min to 1."""

    fractions: Tensor = torch.zeros(0)

    def times(self, batch: int, t_min: float = 0.0) -> Tensor:
        assert batch == len(self.fractions)
        return t_min + (1 - t_min) * self.fractions


@dataclass(frozen=True)
class Enumeration:
    """A batch of every x_t at every quadrature node, for one clean sequence."""

    x0: Tensor
    x_t: Tensor
    fractions: Tensor
    weights: Tensor

    @classmethod
    def of(cls, process: Interpolating, clean: Tensor) -> "Enumeration":
        states, (nodes, weights) = all_sequences(process.num_states, len(clean)), tanh_sinh()
        x_t = states.repeat(len(nodes), 1)
        return cls(
            clean.expand_as(x_t),
            x_t,
            nodes.repeat_interleave(len(states))[:, None],
            weights.repeat_interleave(len(states)),
        )

    def expectation(self, process: Interpolating, alpha: Tensor, per_token: Tensor) -> float:
        chance = transition(process, self.x0, self.x_t, alpha).prod(-1)
        return float((self.weights * chance * per_token.sum(-1)).sum())


def enumerated(
    objective: DiffusionObjective,
    clean: Tensor,
    monkeypatch: pytest.MonkeyPatch,
    *,
    protocol: Literal["exact", "published", "training"],
    schedule: Schedule,
    t_min: float,
) -> float:
    """What `bound` or training estimates: the exact mean over its noise, through its own code."""
    process = objective.denoiser.process
    every = Enumeration.of(process, clean)
    monkeypatch.setattr(process, "corrupt", lambda x0, alpha, generator: every.x_t)
    draws = FixedTimes(0, 0, 0, 1, 0, torch.device("cpu"), fractions=every.fractions)
    with torch.no_grad():
        if protocol == "training":
            loss = objective(Batch(every.x0, everything(every.x0)), draws)
        else:
            loss = objective.bound(Batch(every.x0, everything(every.x0)), draws, protocol)
    alpha = schedule.alpha(draws.times(len(every.x0), t_min))
    return every.expectation(process, alpha, loss.per_token.double())


@both
@pytest.mark.parametrize("schedule", [LogLinear(0), LogLinear(1e-3), Cosine(1e-3), Polynomial(2)])
def test_the_exact_protocol_is_the_bound_under_every_schedule(process_class, schedule, monkeypatch):
    law = two_token_law()
    objective = Nelbo(exact_model(law, process_class, schedule))
    for clean in law.sequences()[::4]:
        value = enumerated(
            objective, clean, monkeypatch, protocol="exact", schedule=LogLinear(0), t_min=0.0
        )
        # The network is never told a level below the schedule's: a little is lost there.
        assert value == pytest.approx(-law.log_prob(clean[None]).item(), rel=2e-5)


@both
@pytest.mark.parametrize("protocol", ["published", "training"])
@pytest.mark.parametrize("schedule", [LogLinear(1e-3), Cosine(1e-3)])
def test_training_and_the_published_protocol_leave_out_the_ends(
    process_class, schedule, protocol, monkeypatch
):
    law, t_min = two_token_law(), 1e-3
    objective = Nelbo(exact_model(law, process_class, schedule), t_min)
    ends = schedule.alpha(torch.tensor([1.0, t_min], dtype=torch.float64)).tolist()
    for clean in law.sequences()[::4]:
        value = enumerated(
            objective, clean, monkeypatch, protocol=protocol, schedule=schedule, t_min=t_min
        )
        inner = integrated_bound(objective, clean[None], *ends).item() / (1 - t_min)
        assert value == pytest.approx(inner, rel=2e-6)
        assert value < -law.log_prob(clean[None]).item()


def test_the_published_protocol_reports_a_thousandth_less_of_a_fixed_prediction(monkeypatch):
    law, schedule = one_token_law(), LogLinear(1e-3)
    objective = Nelbo(exact_model(law, Absorbing, schedule), t_min=1e-3)
    value = enumerated(
        objective,
        torch.tensor([2]),
        monkeypatch,
        protocol="published",
        schedule=schedule,
        t_min=1e-3,
    )
    assert value == pytest.approx(0.999 * -law.log_prob(torch.tensor([[2]])).item(), rel=1e-6)


@pytest.mark.slow
@both
def test_the_estimate_of_the_bound_is_unbiased(process_class: type[Interpolating]):
    """From t_min = 0.2: nearer to 0, rare texts have values that no number of draws averages."""
    law, t_min = two_token_law(), 0.2
    objective = Nelbo(exact_model(law, process_class), t_min)
    x0 = law.sequences().repeat(6, 1)
    estimates = []
    for seed in range(150):
        draws = Draws.derive("bound", seed, step=0, first=0, total=len(x0))
        loss = objective.bound(Batch(x0, everything(x0)), draws, "published")
        assert loss.total.item() == pytest.approx(loss.per_token.double().sum().item(), rel=1e-6)
        estimates.append(loss.per_token.double().sum(-1).view(6, 9).mean(0))
    per_sequence = torch.stack(estimates)
    ends = exact_model(law, process_class).schedule.alpha(torch.tensor([1.0, t_min]).double())
    expected = integrated_bound(objective, law.sequences(), *ends.tolist()) / (1 - t_min)
    error = per_sequence.std(0) / len(estimates) ** 0.5
    assert ((per_sequence.mean(0) - expected).abs() < 3.5 * error).all()
    whole = per_sequence.mean(1)
    assert abs(whole.mean() - expected.mean()) < 3 * whole.std() / len(estimates) ** 0.5


def tiny_objective(process: Interpolating, **options: float) -> Nelbo:
    torch.manual_seed(0)
    return Nelbo(model(process, TinyNetwork(process.num_states), LogLinear()), **options)


@both
def test_tokens_that_do_not_count_add_nothing_and_get_no_gradient(process_class, monkeypatch):
    objective = tiny_objective(process_class(5))
    x0 = torch.randint(5, (6, 8), generator=torch.Generator().manual_seed(0))
    mask = torch.rand(6, 8, generator=torch.Generator().manual_seed(1)) < 0.5
    seen: dict[str, Tensor] = {}
    encode = objective.model.backbone.encode

    def keep(inputs: Tensor, sigma: Tensor | None) -> Tensor:
        seen["x_t"], seen["hidden"] = inputs, encode(inputs, sigma)
        seen["hidden"].retain_grad()
        return seen["hidden"]

    monkeypatch.setattr(objective.model.backbone, "encode", keep)

    def losses(counted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        loss = objective(Batch(x0, counted), Draws.derive("test", step=0, first=0, total=6))
        loss.total.backward()
        return loss.total.detach(), loss.per_token, seen["hidden"].grad

    total, per_token, gradient = losses(mask)
    _, all_tokens, all_gradients = losses(everything(x0))
    changeable = objective.denoiser.process.changeable(seen["x_t"])
    assert (per_token[mask & changeable] > 0).all()
    assert (per_token[~(mask & changeable)] == 0).all()
    assert torch.equal(per_token, all_tokens * mask)
    assert total.item() == pytest.approx(per_token.double().sum().item(), rel=1e-6)
    assert (gradient[~(mask & changeable)] == 0).all()
    torch.testing.assert_close(gradient[mask], all_gradients[mask])


@both
def test_a_batch_without_counted_tokens_is_zero_and_can_be_differentiated(process_class):
    objective = tiny_objective(process_class(5))
    x0 = torch.zeros(2, 3, dtype=torch.long)
    loss = objective(Batch(x0, ~everything(x0)), Draws.derive("test", step=0, first=0, total=2))
    loss.total.backward()
    assert loss.total.item() == 0
    assert all((p.grad == 0).all() for p in objective.parameters())


@both
def test_the_training_gradient_is_that_of_the_dense_loss(process_class, monkeypatch):
    process = process_class(5)
    by_row, dense = tiny_objective(process).double(), tiny_objective(process).double()
    monkeypatch.setattr(rows, "CHUNK_ELEMENTS", 4 * process.num_states)
    x0 = torch.randint(5, (3, 4), generator=torch.Generator().manual_seed(0))
    place = {"step": 0, "first": 0, "total": 3}
    by_row(Batch(x0, everything(x0)), Draws.derive("test", **place)).total.backward()

    draws = Draws.derive("test", **place)
    alpha = LogLinear().alpha(draws.times(3, dense.t_min))
    x_t = draws.each(process.corrupt, x0, alpha)
    logits = dense.model.backbone(x_t, -alpha.log() if process.time_conditioned else None)
    alpha = alpha.expand(x0.shape)
    slope = LogLinear().slope(alpha)
    f = dense.row_loss(logits, x_t, x0, alpha, slope)
    f[process.changeable(x_t)].sum().backward()
    for one, other in zip(by_row.parameters(), dense.parameters(), strict=True):
        # The noise level reaches the network in float32.
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
@both
def test_a_training_step_makes_no_tensor_of_positions_by_states(process_class, monkeypatch):
    process = process_class(1008)
    objective = tiny_objective(process)
    x0 = torch.randint(1008, (16, 32), generator=torch.Generator().manual_seed(0))
    dense = x0.numel() * process.num_states

    def largest() -> int:
        with LargestTensor() as made:
            draws = Draws.derive("test", step=0, first=0, total=16)
            objective(Batch(x0, everything(x0)), draws).total.backward()
        return made.elements

    monkeypatch.setattr(rows, "CHUNK_ELEMENTS", 6 * process.num_states)
    assert largest() < dense / 50
    monkeypatch.setattr(rows, "CHUNK_ELEMENTS", dense)
    assert largest() > dense / 4, "the probe sees what it looks for"


class Between(LogLinear):
    """Falls from alpha = 0.9 to 0.2: some noise is there at t = 0, as in SEDD's schedule."""

    def alpha(self, t: Tensor) -> Tensor:
        return 0.9 - 0.7 * t


@pytest.mark.parametrize("schedule", [LogLinear(1e-3), LogLinear(0), Cosine(1e-2), Between()])
def test_the_network_is_told_no_level_outside_its_schedule(schedule: Schedule, monkeypatch):
    objective = Nelbo(exact_model(two_token_law(), Uniform, schedule))
    told = []
    encode = objective.model.backbone.encode

    def listen(inputs: Tensor, sigma: Tensor) -> Tensor:
        told.append(sigma)
        return encode(inputs, sigma)

    monkeypatch.setattr(objective.model.backbone, "encode", listen)
    alpha = torch.tensor([0.0, 1e-9, 0.5, 1.0], dtype=torch.float64)[:, None]
    objective.denoiser.encode(torch.zeros(4, 2, dtype=torch.long), alpha)
    sigma = told[0].flatten()
    noise = max(1e-4, float(schedule.alpha(torch.ones(1, dtype=torch.float64))))
    assert (-sigma[:2]).exp().tolist() == pytest.approx([noise] * 2, rel=1e-5)
    clean = float(schedule.alpha(torch.zeros(1, dtype=torch.float64)))
    assert (-sigma[2:]).exp().tolist() == pytest.approx([0.5, clean])
    assert told[0].shape == (4, 1)
    assert told[0].dtype == torch.float32


@both
@pytest.mark.parametrize("alpha", [1e-3, 0.1, 0.5, 0.9, 0.999])
def test_float32_rows_are_close_to_float64(process_class, alpha: float):
    process = process_class(50_256)
    objective = Nelbo(model(process, TinyNetwork(2)))
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(24, process.num_states, generator=generator)
    x0 = torch.randint(process.vocab_size, (24,), generator=generator)
    x_t = process.sample_prior((24,), generator)
    x_t[::2] = x0[::2] if process_class is Uniform else x_t[::2]
    levels = torch.full((24,), alpha, dtype=torch.float64), -torch.ones(24, dtype=torch.float64)
    exact = objective.row_loss(logits.double(), x_t, x0, *levels)
    single = objective.row_loss(logits, x_t, x0, *levels)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("t_min", [-1e-9, 1.0, float("nan")])
def test_a_bad_t_min_is_refused_with_its_range(t_min: float):
    with pytest.raises(ValueError, match="t_min is .*at least 0 and below 1"):
        tiny_objective(Uniform(3), t_min=t_min)


@both
def test_a_batch_of_which_all_is_known_to_count_has_the_same_loss(process_class):
    torch.manual_seed(0)
    process = process_class(3)
    objective = Nelbo(model(process, TinyNetwork(process.num_states)))
    x0 = torch.randint(3, (4, 5))
    plain = Batch(x0, everything(x0))
    known = plain.to(torch.device("cpu"))
    assert known.every
    assert not plain.every
    assert not known._replace(mask=x0 > 0).every
    found = [objective(one, Draws.derive(0, step=0, first=0, total=4)) for one in (plain, known)]
    assert torch.equal(found[0].total, found[1].total)
    assert torch.equal(found[0].per_token, found[1].per_token)
