"""The noise, the bound with a rate for each token value, its gradient, and sampling."""

import pytest
import torch
from platform_learned_schedule.process import ByValue

from platform_core.objective import Nelbo
from platform_core.process import Absorbing
from platform_core.testing import ContractTests
from platform_core.testing.toy import (
    ExactDenoiser,
    chain_law,
    double,
    exact_model,
    index_of,
    integrated_bound,
    marginals,
    one_token_law,
    two_token_law,
)

EXACT = {"rtol": 0, "atol": 1e-12}


class TestContract(ContractTests):
    plugin = "by-value"
    options = ("--process.spread=3",)


def spread(size: int) -> ByValue:
    return ByValue(size, power=2.0, spread=3.0).requires_grad_(False)


def mu(law: torch.Tensor, process: ByValue, alpha: torch.Tensor) -> torch.Tensor:
    """The law of a clean token behind a mask, from that given the other tokens."""
    hidden = law * (1 - alpha) ** process.exponents
    return hidden / hidden.sum(-1, keepdim=True)


def test_equal_exponents_are_mdlm_and_their_mean_stays():
    levels = double(0.9, 0.3, 1e-9)
    process = ByValue(4, power=1.0)
    torch.testing.assert_close(marginals(process, levels), marginals(Absorbing(4), levels), **EXACT)
    torch.testing.assert_close(spread(3).exponents, double(2 / 3, 2, 6))
    process.logs.data += double(0.5, 0, -0.2, 0.1)
    assert process.exponents.log().mean().abs() < 1e-15
    torch.testing.assert_close(
        marginals(process, double(0.3))[0, 0, 0], 1 - 0.7 ** process.exponents[0]
    )


def test_the_bound_of_exact_predictions_is_the_likelihood():
    law = two_token_law()
    bound = integrated_bound(Nelbo(exact_model(law, spread)), law.sequences())
    torch.testing.assert_close(bound, -law.log_prob(law.sequences()), rtol=0, atol=1e-11)


def test_the_integrand_is_that_of_jumps_out_of_a_mask():
    """sum_v r_v mu_v - r_x - r_x log mu_x, from any prediction."""
    process, alpha = spread(3), double(0.4)
    objective = Nelbo(exact_model(one_token_law(), lambda _: process))
    law = torch.rand(3, 3, generator=torch.Generator().manual_seed(0)).double()
    law = law / law.sum(-1, keepdim=True)
    logits = torch.nn.functional.pad(law.log(), (0, 1), value=-1e6)
    x0, x_t, slope = torch.arange(3), torch.full((3,), 3), double(-0.7)
    found = objective.row_loss(logits, x_t, x0, alpha.expand(3), slope.expand(3))
    rates = -slope * process.exponents / (1 - alpha)
    seen = mu(law, process, alpha)
    expected = (rates * seen).sum(-1) - rates - rates * seen.diagonal().log()
    torch.testing.assert_close(found, expected, **EXACT)


class Tilted(ExactDenoiser):
    """It predicts tokens that are revealed late too often: p_v w_v in place of p_v."""

    def logits(self, log_x0, x_t, alpha):
        return (log_x0 + torch.nn.functional.pad(self.process.exponents.log(), (0, 1))).log_softmax(
            -1
        )


class WithoutRates(Nelbo):
    """A weighted cross-entropy, -alpha_x' / (1 - alpha_x) (-log mu_x), without the other terms."""

    def row_loss(self, logits, x_t, x0, alpha, slope):
        process = self.denoiser.process
        law = logits[..., : process.vocab_size].softmax(-1)
        here = mu(law, process, alpha[..., None]).gather(-1, x0[..., None]).squeeze(-1)
        nats = -slope * process.exponents[x0] / (1 - alpha) * -here.log()
        return torch.where(process.changeable(x_t), nats, 0.0)


def test_the_weighted_cross_entropy_alone_is_no_bound():
    """With exact predictions it is too low for some texts; a wrong network gets below the entropy,
    which no bound can, and which the whole integrand does not.
    """
    law = two_token_law()
    texts, nats = law.sequences(), -law.log_prob(law.sequences())
    exact = exact_model(law, spread)
    wrong = exact.with_backbone(Tilted(law, exact.process))
    mean = [
        float((law.probs.flatten() * integrated_bound(kind(built), texts)).sum())
        for kind in (WithoutRates, Nelbo)
        for built in (exact, wrong)
    ]
    entropy = float((law.probs.flatten() * nats).sum())
    assert mean[0] == pytest.approx(entropy, abs=1e-9)  # the lacking terms have mean 0 only here
    assert (integrated_bound(WithoutRates(exact), texts) - nats).min() < -0.1
    assert mean[1] < entropy - 0.05
    assert mean[2] == pytest.approx(entropy, abs=1e-9)
    assert mean[3] > entropy + 0.05


@pytest.mark.parametrize("steps", [1, 3])
def test_steps_reveal_one_token_with_its_law(steps):
    """However long the steps, since nothing else depends on the token."""
    law = one_token_law()
    found = chain_law(law, spread(3), torch.linspace(0, 1, steps + 1).double())
    torch.testing.assert_close(found[:3], law.probs, **EXACT)
    assert found[3] == 0


def test_short_steps_return_the_law_of_the_text():
    law, process = two_token_law(), spread(3)
    clean = index_of(law.sequences(), 4)
    errors = [
        (chain_law(law, process, torch.linspace(0, 1, n + 1).double())[clean] - law.probs.flatten())
        .abs()
        .sum()
        .item()
        for n in (8, 32, 128)
    ]
    assert errors[1] < 0.35 * errors[0]
    assert errors[2] < 0.35 * errors[1]


@pytest.mark.parametrize("option", ["power", "spread"])
def test_options_out_of_range_are_refused(option):
    with pytest.raises(ValueError, match=f"{option} .*0.*must be above 0"):
        ByValue(3, **{option: 0.0})
