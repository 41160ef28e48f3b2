"""SUBS, its score and its loss are those of the published code."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from platform_core.model import Model
from platform_core.objective import Nelbo
from platform_core.process import LOG_ZERO
from platform_core.schedule import Cosine, LogLinear
from platform_core.testing.golden import Golden
from platform_core.testing.toy import TinyNetwork
from platform_mdlm.objective import MaskedNelbo
from platform_mdlm.parameterization import Subs
from platform_mdlm.process import Mdlm

GOLDEN = Golden(Path(__file__).parent / "golden")
tensors, tolerance = GOLDEN.tensors, GOLDEN.tolerance
SCHEDULES = {"log-linear": LogLinear, "cosine": Cosine}
named = pytest.mark.parametrize("name", list(SCHEDULES))
both_objectives = pytest.mark.parametrize("objective_class", [MaskedNelbo, Nelbo])


def without_digits_of_zero(log_x0: Tensor) -> Tensor:
    """The reference subtracts a normaliser from its -1e6, which still stands for log 0."""
    return log_x0.masked_fill(log_x0 < LOG_ZERO / 2, LOG_ZERO)


def objective(objective_class, name: str):
    process = Mdlm(18)
    network = TinyNetwork(process.num_states)
    return objective_class(Model(process, SCHEDULES[name](eps=1e-3), Subs(), network))


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
    log_x0 = Subs().log_x0(case["logits"], case["xt"], torch.tensor(0.5), process)
    expected = without_digits_of_zero(case["output/log_p"])
    torch.testing.assert_close(log_x0, expected, **tolerance(id_))
    alpha = (-case["sigma"].double()).exp()
    score = Subs().log_score(case["logits"], case["xt"], alpha, process).exp()
    torch.testing.assert_close(score, case["output/score"], **tolerance(id_))
