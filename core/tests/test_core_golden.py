"""Values that the published reference code computes; where it errs, the right ones beside them."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from platform_core.categorical import InnerNucleus, Nucleus, TopK, truncation
from platform_core.process import Absorbing, Uniform, log_one_hot
from platform_core.schedule import Cosine, LogLinear, Schedule
from platform_core.testing.golden import Golden

GOLDEN = Golden(Path(__file__).parent / "golden")
tensors, tolerance = GOLDEN.tensors, GOLDEN.tolerance


def slope_factor(name: str) -> float:
    """The reference's cosine slope lacks the factor 1 - eps of the chain rule."""
    return 1 - 1e-3 if name == "cosine" else 1.0


SCHEDULES: dict[str, type[Schedule]] = {"log-linear": LogLinear, "cosine": Cosine}
named = pytest.mark.parametrize("name", list(SCHEDULES))


@named
def test_schedules_are_the_reference_s(name: str):
    schedule, case = SCHEDULES[name](eps=1e-3), tensors(f"a.{name}")
    single, double = case["t"], case["t"].double()
    within = tolerance(f"a.{name}")
    torch.testing.assert_close(schedule.alpha(single), case["output/alpha"], **within)
    torch.testing.assert_close(
        schedule.alpha(double), case["output/alpha_f64"], rtol=1e-12, atol=1e-15
    )
    torch.testing.assert_close(
        schedule.slope(single), slope_factor(name) * case["output/dalpha"], **within
    )
    slope = case.get("output/dalpha_corrected_f64", case["output/dalpha_f64"])
    torch.testing.assert_close(schedule.slope(double), slope, rtol=1e-12, atol=1e-15)
    # The reference's float32 cosine has few digits left at the noisy end, where sigma is large.
    torch.testing.assert_close(schedule.alpha(single), (-case["output/sigma"]).exp(), **within)


@named
def test_inverses_are_right_where_the_reference_forgets_eps(name: str):
    schedule, case = SCHEDULES[name](eps=1e-3), tensors(f"a.{name}")
    t, published = case["t"].double(), case["output/t_for_alpha"].double()
    torch.testing.assert_close(published, (1 - 1e-3) * t, rtol=1e-4, atol=2e-4)
    assert not torch.allclose(published, t, rtol=1e-4, atol=2e-4)
    torch.testing.assert_close(schedule.inverse(schedule.alpha(t)), t, rtol=1e-12, atol=1e-15)


def normalised(law: Tensor) -> Tensor:
    """The stored predictions sum to 1 in float32 only, and the reference keeps that."""
    return law / law.sum(-1, keepdim=True)


def test_uniform_posteriors_are_the_reference_s():
    id_ = "g.duo_base_posterior"
    case, process = tensors(id_), Uniform(19)
    x_t, alpha_s, alpha_t = case["xt"], case["alpha_s"], case["alpha_t"]
    one_hot = log_one_hot(case["x0"], 19, torch.float64)
    for log_x0, level, expected in (
        (case["p_x0"].log(), alpha_s, "posterior"),
        (one_hot, alpha_s, "posterior_onehot"),
        (case["p_x0"].log(), torch.ones_like(alpha_s), "posterior_noise_removal"),
    ):
        law = process.posterior(log_x0, x_t, level, alpha_t)
        torch.testing.assert_close(law, case[f"output/{expected}"], **tolerance(id_))
        score = process.log_score(log_x0, x_t, alpha_t)
        law = process.reverse(score, x_t, level, alpha_t)
        torch.testing.assert_close(law, case[f"output/{expected}"], **tolerance(id_))


def test_absorbing_posteriors_are_the_reference_s():
    """The reference's law at clean positions is its prediction, a one-hot; here it is the token."""
    id_ = "h.absorbing_posterior"
    case, process = tensors(id_), Absorbing(18)
    x_t, alpha_s, alpha_t = case["xt"], case["alpha_s"], case["alpha_t"]
    log_x0 = case["p_x0"].log()
    for level, expected in (
        (alpha_s, "posterior"),
        (torch.ones_like(alpha_s), "posterior_noise_removal"),
    ):
        law = process.posterior(log_x0, x_t, level, alpha_t)
        torch.testing.assert_close(law, normalised(case[f"output/{expected}"]), **tolerance(id_))


@pytest.mark.parametrize("top_p", [0.5, 0.9, 0.95])
def test_nuclei_are_the_reference_s(top_p: float):
    case = tensors("n.nucleus")
    torch.testing.assert_close(
        Nucleus(top_p)(case["log_p"]),
        case[f"output/top_p_{top_p}"],
        **tolerance("n.nucleus"),
    )


def test_top_k_is_the_reference_s_alone_and_before_a_nucleus():
    case, within = tensors("n.nucleus"), tolerance("n.nucleus")
    torch.testing.assert_close(TopK(5)(case["log_p"]), case["output/top_k_5"], **within)
    both = truncation(0.8, 7)(case["log_p"])
    torch.testing.assert_close(both, case["output/top_k_7_top_p_0.8"], **within)


@pytest.mark.parametrize("top_p", [0.5, 0.9, 0.95])
def test_inner_nuclei_lack_the_last_token_of_the_reference_s(top_p: float):
    """The reference has the other convention only; the two differ by the token that crosses."""
    case = tensors("n.nucleus")
    reference = case[f"output/top_p_{top_p}"]
    alone = reference.isfinite().sum(-1, keepdim=True) == 1
    least = reference.masked_fill(~reference.isfinite(), torch.inf).amin(-1, keepdim=True)
    expected = torch.where(alone | (reference > least), reference, -torch.inf).log_softmax(-1)
    inner = InnerNucleus(top_p)(case["log_p"])
    torch.testing.assert_close(inner, expected, **tolerance("n.nucleus"))


@pytest.mark.parametrize("process", [Uniform(19), Absorbing(18)], ids=["uniform", "absorbing"])
def test_forward_marginals_are_the_reference_s(process: Uniform | Absorbing):
    """alpha x_0 + (1 - alpha) pi: the posterior of a step from pure noise."""
    id_ = "g.duo_base_posterior" if isinstance(process, Uniform) else "h.absorbing_posterior"
    case = tensors(id_)
    noise = torch.full_like(case["xt"], 18)
    law = process.posterior(
        case["p_x0"].log(), noise, case["alpha_s"], torch.zeros_like(case["alpha_s"])
    )
    torch.testing.assert_close(law, normalised(case["output/forward_process"]), **tolerance(id_))
