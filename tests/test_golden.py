"""Values that the published reference code computes; where it errs, the right ones beside them."""

import pytest
import torch
from published import DUO, network
from published import THROUGH_THE_NETWORK as CASES
from torch import Tensor

from platform_core.model import Denoiser, Model
from platform_core.objective import DiffusionObjective, Nelbo
from platform_core.parameterization import Mean, Parameterization
from platform_core.process import LOG_ZERO, Process, Uniform
from platform_core.schedule import Cosine, LogLinear, Schedule
from platform_d3pm.objective import DiscreteNelbo, absorbing_divergence
from platform_d3pm.process import AbsorbingD3pm
from platform_duo.curriculum import Curriculum
from platform_duo.objective import UniformNelbo
from platform_duo.process import Duo
from platform_mdlm.objective import MaskedNelbo
from platform_mdlm.parameterization import Subs
from platform_mdlm.process import Mdlm
from platform_sedd.objective import ScoreEntropy
from platform_sedd.parameterization import Score
from platform_sedd.process import AbsorbingSedd

tensors, tolerance = CASES.tensors, CASES.tolerance
SCHEDULES: dict[str, type[Schedule]] = {"log-linear": LogLinear, "cosine": Cosine}
MASK, STEPS = 18, 1000
named = pytest.mark.parametrize("name", list(SCHEDULES))
both_objectives = pytest.mark.parametrize("objective_class", [Nelbo, UniformNelbo])


def slope_factor(name: str) -> float:
    """The reference's cosine slope lacks the factor 1 - eps of the chain rule."""
    return 1 - 1e-3 if name == "cosine" else 1.0


def without_digits_of_zero(log_x0: Tensor) -> Tensor:
    """The reference subtracts a normaliser from its -1e6, which still stands for log 0."""
    return log_x0.masked_fill(log_x0 < LOG_ZERO / 2, LOG_ZERO)


def around(
    objective_class: type[DiffusionObjective],
    process: Process,
    name: str,
    parameterization: Parameterization,
) -> DiffusionObjective:
    """An objective around the network of the golden cases."""
    schedule = SCHEDULES[name](eps=1e-3)
    return objective_class(Model(process, schedule, parameterization, network(process)))


@named
@both_objectives
@torch.no_grad()
def test_uniform_losses_through_the_network_are_the_reference_s(
    objective_class: type[DiffusionObjective], name: str
):
    id_ = f"x.duo_base_{name}"
    case = tensors(id_)
    objective = around(objective_class, Uniform(19), name, Mean())
    denoiser = objective.denoiser
    t = case["t"][:, None].double()
    alpha, slope = denoiser.schedule.alpha(t), denoiser.schedule.slope(t)
    hidden = denoiser.encode(case["xt"], alpha)
    logits = objective.model.backbone.decoder(hidden)
    log_x0 = denoiser.parameterization.log_x0(
        logits, case["xt"], torch.tensor(0.5), denoiser.process
    )
    torch.testing.assert_close(log_x0, case["output/log_p"], **tolerance(id_))
    shape = case["x0"].shape
    loss = objective.row_loss(
        logits, case["xt"], case["x0"], alpha.expand(shape), slope.expand(shape)
    )
    torch.testing.assert_close(loss, slope_factor(name) * case["output/nll"], **tolerance(id_))


@named
@pytest.mark.parametrize("objective_class", [MaskedNelbo, Nelbo])
@torch.no_grad()
def test_mdlm_losses_through_the_network_are_the_reference_s(objective_class, name: str):
    id_ = f"x.mdlm_{name}"
    case, built = tensors(id_), around(objective_class, Mdlm(18), name, Subs())
    denoiser = built.denoiser
    t = case["t"][:, None].double()
    alpha, slope = denoiser.schedule.alpha(t), denoiser.schedule.slope(t)
    logits = built.model.backbone.decoder(denoiser.encode(case["xt"], alpha))
    log_x0 = denoiser.parameterization.log_x0(
        logits, case["xt"], torch.tensor(0.5), denoiser.process
    )
    expected = without_digits_of_zero(case["output/log_p"])
    torch.testing.assert_close(log_x0, expected, **tolerance(id_))
    shape, masked = case["x0"].shape, case["xt"] == 18
    loss = built.row_loss(logits, case["xt"], case["x0"], alpha.expand(shape), slope.expand(shape))
    nll = slope_factor(name) * case["output/nll"]
    torch.testing.assert_close(loss[masked], nll[masked], **tolerance(id_))


@named
@pytest.mark.parametrize("objective_class", [ScoreEntropy, Nelbo])
@torch.no_grad()
def test_sedd_losses_through_the_network_are_the_reference_s(objective_class, name: str):
    """Its cosine slope lacks the factor 1 - eps."""
    id_ = f"x.sedd_{name}"
    case, built = tensors(id_), around(objective_class, AbsorbingSedd(MASK), name, Score())
    denoiser = built.denoiser
    t = case["t"][:, None].double()
    alpha, slope = denoiser.schedule.alpha(t), denoiser.schedule.slope(t)
    logits = built.model.backbone.decoder(denoiser.encode(case["xt"], alpha))
    masked = case["xt"] == MASK
    score = Score().log_score(logits, case["xt"], alpha, denoiser.process)
    torch.testing.assert_close(score[masked], case["output/log_p"][masked], **tolerance(id_))
    columns = case["xt"], case["x0"], alpha.expand(3, 12), slope.expand(3, 12)
    loss = built.row_loss(logits, *columns)
    expected = slope_factor(name) * case["output/nll"]
    torch.testing.assert_close(loss[masked], expected[masked], **tolerance(id_))


def reference(log_p: Tensor, x_t: Tensor, x0: Tensor, alpha_t: Tensor, alpha_s: Tensor) -> Tensor:
    """T times its divergence; it puts t - 1 / T in the place of alpha_s = 1 - (t - 1 / T)."""
    dt, t = 1 / STEPS, (1 - alpha_t).clamp(0, 1 - 1e-4)
    clean = log_p.gather(-1, x0[..., None]).squeeze(-1)
    mask = log_p[..., MASK].exp()
    at_t = (alpha_t * mask / t + 1).log()
    at_s = (alpha_s * mask / (t - dt) + 1).log()
    nats = dt / t * (at_t - clean) + (1 - dt / t) * (at_t - at_s)
    return torch.where(x_t == MASK, STEPS * nats, 0.0)


@torch.no_grad()
def test_d3pm_losses_through_the_network_are_the_reference_s_but_for_its_errors():
    id_ = "x.d3pm_log-linear"
    case, process = tensors(id_), AbsorbingD3pm(MASK)
    model = Model(process, LogLinear(eps=1e-3), Mean(), network(process))
    denoiser = Denoiser(model)
    # The reference moves t to the grid, upwards.
    t = ((case["t"] * STEPS).long() + 1).double()[:, None] / STEPS
    alpha_t = denoiser.schedule.alpha(t)
    logits = model.backbone.decoder(denoiser.encode(case["xt"], alpha_t))
    log_p = Mean().log_x0(logits, case["xt"], torch.tensor(0.5), denoiser.process)
    torch.testing.assert_close(log_p, case["output/log_p"], **tolerance(id_))

    clean = model.backbone(case["x0"], torch.zeros(3, 1)).log_softmax(-1)
    superfluous = -clean.gather(-1, case["x0"][..., None]).squeeze(-1)
    alpha_t = alpha_t.expand(3, 12)
    wrong = (1 - alpha_t).clamp(0, 1 - 1e-4) - 1 / STEPS
    erring = reference(log_p.double(), case["xt"], case["x0"], alpha_t, wrong)
    torch.testing.assert_close((erring + superfluous).float(), case["output/nll"], **tolerance(id_))

    objective = DiscreteNelbo(model, STEPS)
    alpha_s = denoiser.schedule.alpha(t - 1 / STEPS).expand(3, 12)
    ours = objective.row_loss(logits, case["xt"], case["x0"], alpha_t, -STEPS * (alpha_s - alpha_t))
    nats = absorbing_divergence(
        log_p.double(), case["xt"], case["x0"], alpha_s, alpha_t, mask_id=MASK
    )
    torch.testing.assert_close(ours, (STEPS * nats).float(), rtol=1e-5, atol=1e-5)
    assert (ours - case["output/nll"]).abs().max() > 1


@torch.no_grad()
def test_the_curriculum_s_loss_through_the_network_is_the_reference_s():
    """From its noise, at its own levels, which it reads from a table: the operator is 1e-3 off."""
    case = DUO.tensors("j.gaussian")
    process = Duo(19)
    objective = Curriculum(
        Model(process, LogLinear(1e-3), Mean(), network(process)), gamma_min=-3.5, gamma_max=-1.75
    )
    soft, x0 = case["output/net_input_softmax"], case["x0"]
    alpha, slope = (case[f"output/usdm_{name}"][:, None] for name in ("alpha", "dalpha"))
    hidden = objective.denoiser.encode(soft, alpha)
    logits = objective.model.backbone.decoder(hidden)
    log_x0 = Mean().log_x0(logits, case["output/xt"], torch.tensor(0.5), process)
    torch.testing.assert_close(log_x0, case["output/log_p"], rtol=1e-4, atol=1e-4)
    levels = (level.expand(x0.shape) for level in (alpha, slope))
    loss = objective.row_loss(logits, case["output/xt"], x0, *levels)
    torch.testing.assert_close(loss.double(), case["output/nll"], rtol=1e-3, atol=1e-4)
    t = case["t"].double()[:, None]
    torch.testing.assert_close(objective.gaussian.alpha(t), alpha, rtol=1e-4, atol=1e-4)
