"""The loss under uniform noise is that of the published code, in both forms of the bound."""

from pathlib import Path

import pytest
import torch

from platform_core.model import Model
from platform_core.objective import DiffusionObjective, Nelbo
from platform_core.parameterization import Mean
from platform_core.process import Uniform
from platform_core.schedule import Cosine, LogLinear, Schedule
from platform_core.testing.golden import Golden
from platform_core.testing.toy import TinyNetwork
from platform_duo.objective import UniformNelbo

GOLDEN = Golden(Path(__file__).parent / "golden")
tensors, tolerance = GOLDEN.tensors, GOLDEN.tolerance

SCHEDULES: dict[str, type[Schedule]] = {"log-linear": LogLinear, "cosine": Cosine}
named = pytest.mark.parametrize("name", list(SCHEDULES))
both_objectives = pytest.mark.parametrize("objective_class", [Nelbo, UniformNelbo])


def uniform_objective(objective_class: type[DiffusionObjective], name: str) -> DiffusionObjective:
    """An objective whose network is not asked: its logits are given."""
    process = Uniform(19)
    model = Model(process, SCHEDULES[name](eps=1e-3), Mean(), TinyNetwork(19))
    return objective_class(model)


@named
@both_objectives
def test_uniform_losses_are_the_reference_s(objective_class: type[DiffusionObjective], name: str):
    id_ = f"g.duo_base_nll_{name}"
    case = tensors(id_)
    objective = uniform_objective(objective_class, name)
    shape = case["x0"].shape
    columns = (
        case["xt"],
        case["x0"],
        case["alpha"].double().expand(shape),
        case["dalpha"].double().expand(shape),
    )
    log_x0 = objective.denoiser.parameterization.log_x0(
        case["logits"], case["xt"], case["alpha"], objective.denoiser.process
    )
    torch.testing.assert_close(log_x0, case["output/log_p"], **tolerance(id_))
    torch.testing.assert_close(
        objective.row_loss(case["logits"], *columns), case["output/nll"], **tolerance(id_)
    )
    # The reference's double run starts from its float32 log-probabilities.
    torch.testing.assert_close(
        objective.row_loss(case["output/log_p"].double(), *columns),
        case["output/nll_float64"],
        rtol=1e-6,
        atol=1e-6,
    )
