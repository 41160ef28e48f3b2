"""SEDD's score, loss and steps are those of the published code, at the tokens that they are for."""

from pathlib import Path

import pytest
import torch

from platform_core.model import Model
from platform_core.objective import Nelbo
from platform_core.schedule import Cosine, LogLinear
from platform_core.testing.golden import Golden
from platform_core.testing.toy import TinyNetwork
from platform_sedd.objective import ScoreEntropy
from platform_sedd.parameterization import Score
from platform_sedd.process import AbsorbingSedd

GOLDEN = Golden(Path(__file__).parent / "golden")
tensors, tolerance = GOLDEN.tensors, GOLDEN.tolerance
SCHEDULES = {"log-linear": LogLinear, "cosine": Cosine}
named = pytest.mark.parametrize("name", list(SCHEDULES))
both_objectives = pytest.mark.parametrize("objective_class", [ScoreEntropy, Nelbo])
MASK = 18


def objective(objective_class, name: str):
    process = AbsorbingSedd(MASK)
    network = TinyNetwork(process.num_states)
    return objective_class(Model(process, SCHEDULES[name](eps=1e-3), Score(), network))


@named
def test_the_score_at_masks_is_the_reference_s(name: str):
    """Elsewhere the reference keeps the network's output; nothing reads it, as such tokens stay."""
    id_ = f"e.sedd_{name}"
    case, process = tensors(id_), AbsorbingSedd(MASK)
    masked = case["xt"] == MASK
    score = Score().log_score(case["logits"], case["xt"], case["alpha"].double(), process)
    torch.testing.assert_close(score[masked], case["output/log_score"][masked], **tolerance(id_))


@named
@both_objectives
def test_the_loss_is_the_reference_s(objective_class, name: str):
    id_ = f"e.sedd_{name}"
    case, built = tensors(id_), objective(objective_class, name)
    levels = (case[key].double().expand(3, 12) for key in ("alpha", "dalpha"))
    loss = built.row_loss(case["logits"], case["xt"], case["x0"], *levels)
    masked = case["xt"] == MASK
    assert masked.any()
    assert (case["output/nll"][~masked] == 0).all()
    torch.testing.assert_close(loss[masked], case["output/nll"][masked], **tolerance(id_))


@named
def test_the_steps_are_the_reference_s(name: str):
    """From its own scores; its negative mass, which it leaves to its sampler, is 0 here."""
    id_ = f"e.sedd_{name}"
    case, process = tensors(id_), AbsorbingSedd(MASK)
    schedule, within = SCHEDULES[name](eps=1e-3), tolerance(id_)
    t, log_score = case["t"].double()[:, None], case["output/log_score"].double()
    alpha_t, alpha_s = schedule.alpha(t), schedule.alpha(t - case["dt"].double())
    staggered = process.staggered_score(log_score.exp(), alpha_s, alpha_t)
    torch.testing.assert_close(staggered.float(), case["output/staggered_score"], **within)
    law = process.reverse(log_score, case["xt"], alpha_s, alpha_t)
    torch.testing.assert_close(law, case["output/analytic_probs"].clamp_min(0), **within)
    clean = process.reverse(log_score, case["xt"], torch.ones_like(alpha_t), alpha_t)
    clean[..., MASK] = 0
    torch.testing.assert_close(clean, case["output/denoiser_probs"].clamp_min(0), **within)
