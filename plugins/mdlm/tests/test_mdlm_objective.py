"""The closed form is the generic bound, in continuous time and in T steps; training may weigh it.

Expectations over x_t are sums over all states, integrals over levels quadratures or sums of steps.
"""

import itertools
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from platform_core import rows
from platform_core.draws import Draws
from platform_core.objective import DiffusionObjective, Nelbo
from platform_core.parameterization import Mean
from platform_core.process import Absorbing
from platform_core.schedule import Cosine, LogLinear, Polynomial, Schedule, Stepwise
from platform_core.testing.allocations import LargestTensor
from platform_core.testing.objective import AtOnce
from platform_core.testing.toy import (
    TinyNetwork,
    ToyLaw,
    all_sequences,
    exact_model,
    integrated_bound,
    model,
    one_token_law,
    random_law,
    transition,
    two_token_law,
)
from platform_core.types import Batch
from platform_mdlm.objective import MaskedNelbo
from platform_mdlm.parameterization import Subs
from platform_mdlm.process import Mdlm

TIGHT = {"rtol": 1e-11, "atol": 1e-12}
LAWS = [one_token_law(), two_token_law(), random_law(6, 2, seed=5), random_law(2, 3, seed=6)]


def everything(x0: Tensor) -> Tensor:
    return torch.ones_like(x0, dtype=torch.bool)


def exact_objective(law: ToyLaw, schedule: Schedule | None = None, **options) -> MaskedNelbo:
    return MaskedNelbo(exact_model(law, Mdlm, schedule, Subs()), **options)


def tiny_objective(process: Absorbing, **options) -> MaskedNelbo:
    torch.manual_seed(0)
    network = TinyNetwork(process.num_states)
    return MaskedNelbo(model(process, network, LogLinear(), Subs()), **options)


@given(
    vocab_size=st.integers(2, 40),
    alpha=st.floats(1e-3, 0.999),
    slope=st.floats(-5, -1e-3),
    seed=st.integers(0, 1000),
)
def test_the_closed_form_is_the_generic_bound(vocab_size, alpha, slope, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(12, vocab_size + 1, generator=generator, dtype=torch.float64)
    x0 = torch.randint(vocab_size, (12,), generator=generator)
    x_t = torch.where(torch.rand(12, generator=generator) < 0.5, x0, vocab_size)
    levels = (torch.full((12,), value, dtype=torch.float64) for value in (alpha, slope))
    columns = (logits, x_t, x0, *levels)
    one = model(Mdlm(vocab_size), TinyNetwork(2), parameterization=Subs())
    closed, generic = MaskedNelbo(one).row_loss(*columns), Nelbo(one).row_loss(*columns)
    torch.testing.assert_close(closed, generic, rtol=1e-9, atol=1e-9)
    assert (closed[x_t == x0] == 0).all()


def test_the_weight_is_1_over_t_on_a_log_linear_schedule():
    objective = tiny_objective(Mdlm(2))
    t = torch.tensor([1e-3, 0.3, 1.0], dtype=torch.float64)
    masks, x0 = torch.full((3,), 2), torch.zeros(3, dtype=torch.long)
    logits = torch.zeros(3, 3, dtype=torch.float64)
    for schedule in (LogLinear(0), LogLinear(1e-3), LogLinear(0.3)):
        loss = objective.row_loss(logits, masks, x0, schedule.alpha(t), schedule.slope(t))
        torch.testing.assert_close(loss, torch.tensor(2.0).log().double() / t)


@pytest.mark.parametrize("alpha", [1e-4, 0.5, 0.999])
def test_float32_rows_of_a_wide_vocabulary_keep_their_digits(alpha: float):
    objective = MaskedNelbo(model(Mdlm(50_256), TinyNetwork(2), parameterization=Subs()))
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(12, 50_257, generator=generator)
    x0 = torch.randint(50_256, (12,), generator=generator)
    x_t = torch.full((12,), 50_256)
    levels = torch.full((12,), alpha, dtype=torch.float64), -torch.ones(12, dtype=torch.float64)
    exact = objective.row_loss(logits.double(), x_t, x0, *levels)
    single = objective.row_loss(logits, x_t, x0, *levels)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("law", LAWS)
def test_the_bound_of_exact_predictions_is_the_negative_log_likelihood(law: ToyLaw):
    x0 = law.sequences()
    torch.testing.assert_close(
        integrated_bound(exact_objective(law), x0), -law.log_prob(x0), **TIGHT
    )


def order_agnostic(objective: MaskedNelbo, clean: Tensor) -> float:
    """sum_n 1/n E_{|M| = n} sum_{l in M} -log x_theta^l(x with M masked): no time in it."""
    process, parameterization = objective.denoiser.process, Subs()
    length, total = len(clean), 0.0
    for number in range(1, length + 1):
        sets = list(itertools.combinations(range(length), number))
        for masked in sets:
            x_t = clean.clone()
            x_t[list(masked)] = process.mask_id
            logits = objective.model.backbone(x_t[None], None)
            log_x0 = parameterization.log_x0(logits, x_t[None], torch.tensor(0.5), process)[0]
            nats = -log_x0[torch.arange(length), clean][list(masked)].sum()
            total += float(nats) / number / len(sets)
    return total


@torch.no_grad()
def test_the_bound_is_the_mean_over_all_orders_of_unmasking():
    objective = exact_objective(two_token_law())
    clean = torch.tensor([1, 2])
    assert order_agnostic(objective, clean) == pytest.approx(1.7266696813, abs=6e-11)
    wrong = tiny_objective(Mdlm(3)).double()
    for clean in (torch.tensor([1, 2, 0]), torch.tensor([0, 0, 2])):
        bound = integrated_bound(wrong, clean[None]).item()
        assert order_agnostic(wrong, clean) == pytest.approx(bound, rel=1e-10)


@dataclass
class FixedTimes(AtOnce):
    """Draws whose times are given, as fractions of the way from t_min to 1."""

    fractions: Tensor = torch.zeros(0)

    def times(self, batch: int, t_min: float = 0.0) -> Tensor:
        assert batch == len(self.fractions)
        return t_min + (1 - t_min) * self.fractions


def bound_in_steps(
    objective: DiffusionObjective, clean: Tensor, num_steps: int, monkeypatch: pytest.MonkeyPatch
) -> float:
    """The exact mean of `bound` over its noise: all x_t, the middle of each of the T steps.

    Nats of a token are float32, and the seventh digit with them.
    """
    process = objective.denoiser.process
    states = all_sequences(process.num_states, len(clean))
    possible = states[((states == clean) | (states == process.mask_id)).all(-1)]
    x_t = possible.repeat(num_steps, 1)
    middle = (torch.arange(num_steps).double() + 0.5) / num_steps
    fractions = middle.repeat_interleave(len(possible))[:, None]
    monkeypatch.setattr(process, "corrupt", lambda x0, alpha, generator: x_t)
    draws = FixedTimes(0, 0, 0, 1, 0, torch.device("cpu"), fractions=fractions)
    x0 = clean.expand_as(x_t)
    with torch.no_grad():
        loss = objective.bound(Batch(x0, everything(x0)), draws)
    chance = transition(process, x0, x_t, objective.exact_schedule.alpha(fractions)).prod(-1)
    return float((chance * loss.per_token.double().sum(-1)).sum() / num_steps)


TABLE = {1: 1.82904837, 2: 1.77785903, 4: 1.75226435, 16: 1.73306835, 256: 1.72706960}


@pytest.mark.parametrize("num_steps", list(TABLE))
@pytest.mark.parametrize("eps", [0, 1e-3])
def test_the_bound_in_steps_has_the_printed_values(num_steps: int, eps: float, monkeypatch):
    """Also where the schedule leaves a little signal: sampling starts from masks alone."""
    objective = exact_objective(two_token_law(), LogLinear(eps), num_steps=num_steps)
    value = bound_in_steps(objective, torch.tensor([1, 2]), num_steps, monkeypatch)
    assert value == pytest.approx(TABLE[num_steps], abs=2e-7 if eps == 0 else 1e-3)


@pytest.mark.parametrize("num_steps", [1, 2, 5])
@pytest.mark.parametrize("schedule", [LogLinear(1e-3), Cosine(1e-3), Polynomial(2)])
def test_predictions_that_ignore_the_noise_cost_their_log_loss_in_any_number_of_steps(
    num_steps: int, schedule: Schedule, monkeypatch
):
    law = one_token_law()
    objective = exact_objective(law, schedule, num_steps=num_steps)
    for clean in law.sequences():
        value = bound_in_steps(objective, clean, num_steps, monkeypatch)
        assert value == pytest.approx(-law.log_prob(clean[None]).item(), rel=1e-6)


@pytest.mark.parametrize("schedule", [LogLinear(0), Cosine(1e-3), Polynomial(2)])
def test_the_bound_in_steps_falls_to_that_of_continuous_time(schedule: Schedule, monkeypatch):
    law, clean = two_token_law(), torch.tensor([1, 2])
    values = [
        bound_in_steps(exact_objective(law, schedule, num_steps=n), clean, n, monkeypatch)
        for n in (1, 2, 4, 16, 64, 512)
    ]
    assert values == sorted(values, reverse=True)
    assert values[-1] == pytest.approx(-law.log_prob(clean[None]).item(), abs=1e-3)
    assert values[0] == pytest.approx(TABLE[1], abs=2e-7), "one step has no schedule"


@pytest.mark.slow
def test_the_estimate_in_steps_is_unbiased():
    law = two_token_law()
    objective = exact_objective(law, num_steps=2)
    x0 = torch.tensor([[1, 2]]).expand(4000, 2)
    draws = Draws.derive("test", step=0, first=0, total=4000)
    estimate = objective.bound(Batch(x0, everything(x0)), draws).per_token.double().sum(-1)
    error = estimate.std() / len(estimate) ** 0.5
    assert abs(estimate.mean() - TABLE[2]) < 3 * error


@pytest.mark.parametrize("num_steps", [1, 3, 1000])
@pytest.mark.parametrize("inner", [LogLinear(1e-3), Cosine(1e-3), Polynomial(0.5)])
def test_a_stepwise_schedule_goes_from_text_to_masks_in_even_steps(inner, num_steps):
    schedule = Stepwise(inner, num_steps)
    middle = (torch.arange(num_steps).double() + 0.5) / num_steps
    grid = torch.arange(num_steps + 1).double() / num_steps
    alpha = schedule.alpha(grid)
    assert alpha[0] == 1
    assert alpha[-1] == 0
    torch.testing.assert_close(alpha[1:-1], inner.alpha(grid[1:-1]))
    torch.testing.assert_close(schedule.alpha(middle), alpha[1:])
    torch.testing.assert_close(schedule.slope(middle) / num_steps, alpha[1:] - alpha[:-1])
    torch.testing.assert_close(schedule.inverse(alpha), grid)
    torch.testing.assert_close(
        schedule.inverse(alpha[1:]), schedule.inverse(schedule.alpha(middle))
    )
    ends = torch.tensor([[2.0**-40], [1 - 2.0**-40]], dtype=torch.float64)
    torch.testing.assert_close(schedule.alpha(ends), alpha[[1, -1]][:, None])


def test_a_network_that_is_told_the_level_has_a_finite_bound_in_steps():
    objective = tiny_objective(Mdlm(5, time_conditioned=True), num_steps=3)
    x0 = torch.randint(5, (6, 4), generator=torch.Generator().manual_seed(0))
    loss = objective.bound(
        Batch(x0, everything(x0)), Draws.derive("test", step=0, first=0, total=6)
    )
    assert loss.per_token.isfinite().all()


@pytest.mark.parametrize("num_steps", [None, 4])
@pytest.mark.parametrize("protocol", ["exact", "published"])
def test_low_variance_weights_change_training_and_not_the_bound(num_steps, protocol):
    process, options = Mdlm(5), {"num_steps": num_steps}
    bound = tiny_objective(process, **options)
    low_var = tiny_objective(process, weighting="low-var", **options)
    x0 = torch.randint(5, (6, 8), generator=torch.Generator().manual_seed(0))

    def draws() -> Draws:
        return Draws.derive("test", step=0, first=0, total=6)

    t = draws().times(6, low_var.t_min)
    weight = -low_var.schedule.slope(t) / (1 - low_var.schedule.alpha(t))
    trained, plain = (o(Batch(x0, everything(x0)), draws()) for o in (bound, low_var))
    torch.testing.assert_close(plain.per_token * weight.float(), trained.per_token)
    one, other = (o.bound(Batch(x0, everything(x0)), draws(), protocol) for o in (bound, low_var))
    assert torch.equal(one.per_token, other.per_token)
    assert one.total == other.total


def test_the_low_variance_gradient_is_that_of_plain_cross_entropy():
    objective = tiny_objective(Mdlm(5), weighting="low-var").double()
    x0 = torch.randint(5, (6, 8), generator=torch.Generator().manual_seed(0))
    objective(
        Batch(x0, everything(x0)), Draws.derive("test", step=0, first=0, total=6)
    ).total.backward()
    by_row = [parameter.grad for parameter in objective.parameters()]
    draws = Draws.derive("test", step=0, first=0, total=6)
    alpha = LogLinear().alpha(draws.times(6, objective.t_min))
    x_t = draws.each(objective.denoiser.process.corrupt, x0, alpha)
    logits = objective.model.backbone(x_t, None)[x_t == 5][:, :-1]
    cross_entropy = torch.nn.functional.cross_entropy(logits, x0[x_t == 5], reduction="sum")
    dense = torch.autograd.grad(cross_entropy, list(objective.parameters()))
    for one, other in zip(by_row, dense, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_training_step_makes_no_tensor_of_positions_by_states(monkeypatch):
    process = Mdlm(1008)
    objective = tiny_objective(process)
    x0 = torch.randint(1008, (16, 32), generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(rows, "CHUNK_ELEMENTS", 6 * process.num_states)
    with LargestTensor() as made:
        draws = Draws.derive("test", step=0, first=0, total=16)
        objective(Batch(x0, everything(x0)), draws).total.backward()
    assert made.elements < x0.numel() * process.num_states / 50


def test_with_mass_on_the_mask_the_closed_form_would_be_wrong():
    """Why a mean is refused: its bound is not the cross-entropy, but less of it."""
    process = Mdlm(3)
    logits = torch.tensor([[0.3, -0.2, 0.5, 1.0]], dtype=torch.float64)
    x_t, x0 = torch.tensor([3]), torch.tensor([1])
    alpha, slope = torch.tensor([0.4]).double(), torch.tensor([-1.0]).double()
    generic = Nelbo(model(process, TinyNetwork(4))).row_loss(logits, x_t, x0, alpha, slope)
    cross_entropy = -slope / (1 - alpha) * -Mean().log_x0(logits, x_t, alpha, process)[:, 1]
    assert abs(generic - cross_entropy) > 0.1


@pytest.mark.parametrize("num_steps", [0, -1])
def test_fewer_than_one_step_is_refused(num_steps: int):
    with pytest.raises(ValueError, match=r"num_steps is .*at least 1"):
        tiny_objective(Mdlm(3), num_steps=num_steps)
