"""D3PM's predictions are the published code's; its losses are the corrected ones."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from platform_core.parameterization import Mean
from platform_core.process import LOG_ZERO
from platform_core.testing.golden import Golden
from platform_d3pm.objective import absorbing_divergence
from platform_d3pm.process import AbsorbingD3pm

GOLDEN = Golden(Path(__file__).parent / "golden")
tensors, tolerance = GOLDEN.tensors, GOLDEN.tolerance
MASK, STEPS = 18, 1000
cases = pytest.mark.parametrize("subs", [0, 1])


def reference(log_p: Tensor, x_t: Tensor, x0: Tensor, alpha_t: Tensor, alpha_s: Tensor) -> Tensor:
    """T times its divergence; it puts t - 1 / T in the place of alpha_s = 1 - (t - 1 / T)."""
    dt, t = 1 / STEPS, (1 - alpha_t).clamp(0, 1 - 1e-4)
    clean = log_p.gather(-1, x0[..., None]).squeeze(-1)
    mask = log_p[..., MASK].exp()
    at_t = (alpha_t * mask / t + 1).log()
    at_s = (alpha_s * mask / (t - dt) + 1).log()
    nats = dt / t * (at_t - clean) + (1 - dt / t) * (at_t - at_s)
    return torch.where(x_t == MASK, STEPS * nats, 0.0)


def right_level(alpha_t: Tensor) -> Tensor:
    """The reference's grid takes t = 1 - alpha_t for the time of a schedule without eps."""
    return 1 - ((1 - alpha_t).clamp(0, 1 - 1e-4) - 1 / STEPS)


@cases
def test_the_corrected_losses_are_the_divergence(subs: int):
    id_ = f"f.d3pm_subs{subs}"
    case = tensors(id_)
    log_p, alpha_t = case["output/log_p"].double(), case["alpha"].double().expand(3, 12)
    columns = case["xt"], case["x0"]
    nats = absorbing_divergence(log_p, *columns, right_level(alpha_t), alpha_t, mask_id=MASK)
    expected = case["output/diffusion_nll_corrected_f64"]
    assert (expected != 0).any()
    torch.testing.assert_close(STEPS * nats, expected, rtol=1e-6, atol=1e-6)
    restated = reference(log_p, *columns, alpha_t, right_level(alpha_t))
    torch.testing.assert_close(restated, expected, rtol=1e-6, atol=1e-6)


@cases
def test_the_reference_s_losses_are_those_of_a_wrong_alpha_s(subs: int):
    """Where the prediction leaves no chance for a mask, the error has no effect."""
    id_ = f"f.d3pm_subs{subs}"
    case = tensors(id_)
    log_p, alpha_t = case["output/log_p"].double(), case["alpha"].double().expand(3, 12)
    wrong = (1 - alpha_t).clamp(0, 1 - 1e-4) - 1 / STEPS
    erring = reference(log_p, case["xt"], case["x0"], alpha_t, wrong)
    published = case["output/diffusion_nll_reference"]
    torch.testing.assert_close(erring.float(), published, **tolerance(id_))
    apart = (published - case["output/diffusion_nll_corrected_f64"]).abs().max()
    assert apart < 1e-2 if subs else apart > 1


@cases
def test_predictions_are_the_reference_s(subs: int):
    """With "subs masking", the mask has no chance."""
    id_ = f"f.d3pm_subs{subs}"
    case, logits = tensors(id_), tensors(id_)["logits"].clone()
    if subs:
        logits[..., MASK] += LOG_ZERO
    log_x0 = Mean().log_x0(logits, case["xt"], torch.tensor(0.5), AbsorbingD3pm(MASK))
    torch.testing.assert_close(log_x0, case["output/log_p"], **tolerance(id_))


def test_clean_tokens_stay_where_the_reference_draws_them_again():
    """Its posterior at tokens that are no masks is the prediction, which SUBS makes the token."""
    case, process = tensors("h.absorbing_posterior"), AbsorbingD3pm(MASK)
    x_t, alpha_s, alpha_t = case["xt"], case["alpha_s"], case["alpha_t"]
    clean = x_t != MASK
    prediction = torch.full((3, 12, 19), 1 / 19, dtype=torch.float64).log()
    law = process.posterior(prediction, x_t, alpha_s, alpha_t)
    stay = torch.nn.functional.one_hot(x_t, 19).double()
    torch.testing.assert_close(law[clean], stay[clean])
    masked = process.posterior(case["p_x0"].log(), x_t, alpha_s, alpha_t)[~clean]
    expected = case["output/posterior"][~clean]
    expected = expected / expected.sum(-1, keepdim=True)
    torch.testing.assert_close(masked, expected, **tolerance("h.absorbing_posterior"))
