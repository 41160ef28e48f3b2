"""SUBS, its score and its loss are those of the published code."""

import pytest
import torch
from published import network, slope_factor, tensors, tolerance
from torch import Tensor

from platform_core.model import Model
from platform_core.objective import Nelbo
from platform_core.process import LOG_ZERO
from platform_core.schedule import Cosine, LogLinear
from platform_mdlm.objective import MaskedNelbo
from platform_mdlm.parameterization import Subs
from platform_mdlm.process import Mdlm

SCHEDULES = {"log-linear": LogLinear, "cosine": Cosine}
named = pytest.mark.parametrize("name", list(SCHEDULES))
both_objectives = pytest.mark.parametrize("objective_class", [MaskedNelbo, Nelbo])


def without_digits_of_zero(log_x0: Tensor) -> Tensor:
    """The reference subtracts a normaliser from its -1e6, which still stands for log 0."""
    return log_x0.masked_fill(log_x0 < LOG_ZERO / 2, LOG_ZERO)


def objective(objective_class, name: str):
    process = Mdlm(18)
    return objective_class(Model(process, SCHEDULES[name](eps=1e-3), Subs(), network(process)))


@named
@both_objectives
def test_the_loss_is_the_reference_s(objective_class, name: str):
    id_ = f"d.mdlm_{name}"
    case, built = tensors(id_), objective(objective_class, name)
    shape = case["x0"].shape
    levels = (case[key].double().expand(shape) for key in ("alpha", "dalpha"))
    loss = built.row_loss(case["logits"], case["xt"], case["x0"], *levels)
    masked = case["xt"] == 18
    assert masked.any()
    assert (case["output/nll"][~masked] == 0).all()
    torch.testing.assert_close(loss[masked], case["output/nll"][masked], **tolerance(id_))


@named
def test_predictions_and_scores_are_the_reference_s(name: str):
    id_ = f"d.mdlm_{name}"
    case, process = tensors(id_), Mdlm(18)
    log_x0 = Subs().log_x0(case["logits"], case["xt"], process)
    expected = without_digits_of_zero(case["output/log_p"])
    torch.testing.assert_close(log_x0, expected, **tolerance(id_))
    alpha = (-case["sigma"].double()).exp()
    score = Subs().log_score(case["logits"], case["xt"], alpha, process).exp()
    torch.testing.assert_close(score, case["output/score"], **tolerance(id_))


@named
@both_objectives
@torch.no_grad()
def test_the_loss_through_the_network_is_the_reference_s(objective_class, name: str):
    id_ = f"x.mdlm_{name}"
    case, built = tensors(id_), objective(objective_class, name)
    denoiser = built.denoiser
    t = case["t"][:, None].double()
    alpha, slope = denoiser.schedule.alpha(t), denoiser.schedule.slope(t)
    logits = built.model.backbone.decoder(denoiser.encode(case["xt"], alpha))
    log_x0 = denoiser.parameterization.log_x0(logits, case["xt"], denoiser.process)
    expected = without_digits_of_zero(case["output/log_p"])
    torch.testing.assert_close(log_x0, expected, **tolerance(id_))
    shape, masked = case["x0"].shape, case["xt"] == 18
    loss = built.row_loss(logits, case["xt"], case["x0"], alpha.expand(shape), slope.expand(shape))
    nll = slope_factor(name) * case["output/nll"]
    torch.testing.assert_close(loss[masked], nll[masked], **tolerance(id_))
