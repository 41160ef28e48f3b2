"""A network that predicts from all noisy tokens is one that predicts from the others, and back."""

import pytest
import torch
from torch import Tensor

from platform_core.categorical import KeepAll
from platform_core.draws import Draws
from platform_core.model import Denoiser, Model
from platform_core.parameterization import Mean
from platform_core.process import Uniform
from platform_core.sampler import Ancestral
from platform_core.schedule import LogLinear
from platform_core.testing.toy import (
    ExactDenoiser,
    TinyNetwork,
    all_sequences,
    integrated_bound,
    random_law,
    seeded,
)
from platform_core.types import Batch
from platform_duo.objective import DenoisingCrossEntropy, UniformNelbo
from platform_duo.parameterization import Denoising, log_denoised

TOKENS, LENGTH, ALPHA = 3, 3, torch.tensor([[0.37]], dtype=torch.float64)
LAW, PROCESS = random_law(TOKENS, LENGTH, seed=1), Uniform(TOKENS)
TEXTS = all_sequences(TOKENS, LENGTH)


def noisy_law() -> Tensor:
    """q_t of every noisy text, `[texts]`, from the joint law with the clean text, written out."""
    return joint().sum(0)


def joint() -> Tensor:
    """p(x_0) q(x_t | x_0), `[clean, noisy]`."""
    same = (TEXTS[:, None] == TEXTS[None]).double()
    chances = ALPHA * same + (1 - ALPHA) / TOKENS
    return LAW.probs.flatten()[:, None] * chances.prod(-1)


def denoised() -> Tensor:
    """p(x_0^l = j | x_t), `[noisy, length, tokens]`."""
    clean = torch.nn.functional.one_hot(TEXTS, TOKENS).double()
    both = torch.einsum("cn,clj->nlj", joint(), clean)
    return both / both.sum(-1, keepdim=True)


def exact(parameterization: Mean | Denoising) -> Model:
    own = isinstance(parameterization, Denoising)
    network = ExactDenoiser(LAW, PROCESS, own_evidence=own)
    return Model(PROCESS, LogLinear(), parameterization, network)


def test_the_two_laws_are_those_of_enumeration() -> None:
    others = LAW.log_x0(TEXTS, ALPHA, PROCESS)
    found = Denoising().log_x0(denoised().log(), TEXTS, ALPHA, PROCESS)
    torch.testing.assert_close(found, others, rtol=0, atol=1e-12)
    back = log_denoised(others, TEXTS, ALPHA, PROCESS).exp()
    torch.testing.assert_close(back, denoised(), rtol=0, atol=1e-12)


def test_the_bound_of_the_exact_denoiser_is_minus_log_p() -> None:
    bound = integrated_bound(UniformNelbo(exact(Denoising())), TEXTS)
    torch.testing.assert_close(bound, -LAW.log_prob(TEXTS), rtol=0, atol=1e-6)


def test_samples_are_those_of_the_leave_one_out_law() -> None:
    """With temperature and top_p too, which therefore sharpen the leave-one-out law."""
    options = {"steps": 6, "temperature": 0.7, "top_p": 0.9}
    one, other = (
        Ancestral(**options)(exact(part), (500, LENGTH), seeded(2)).tokens
        for part in (Mean(), Denoising())
    )
    assert torch.equal(one, other)


def test_the_cross_entropy_is_that_of_the_logits() -> None:
    """Of `denoiser`; and the exact law is where the gradient of its expectation vanishes."""
    objective = DenoisingCrossEntropy(exact(Denoising()))
    logits = denoised().log().requires_grad_()
    clean, noisy = torch.cartesian_prod(torch.arange(len(TEXTS)), torch.arange(len(TEXTS))).T
    level = ALPHA.expand(len(clean), LENGTH)
    nats = objective.descended(logits[noisy], TEXTS[noisy], TEXTS[clean], level, -level)
    plain = torch.nn.functional.cross_entropy(
        logits[noisy].flatten(0, 1), TEXTS[clean].flatten(), reduction="none"
    )
    torch.testing.assert_close(nats.flatten(), plain)
    expected = (joint()[clean, noisy, None] * nats).sum()
    (gradient,) = torch.autograd.grad(expected, logits)
    assert gradient.abs().max() < 1e-12


def test_the_cross_entropy_of_a_leave_one_out_law_is_that_of_its_denoiser() -> None:
    level = ALPHA.expand(len(TEXTS), LENGTH)
    x0 = TEXTS.flip(0)
    others = LAW.log_x0(TEXTS, ALPHA, PROCESS)
    of_mean = DenoisingCrossEntropy(exact(Mean())).descended(others, TEXTS, x0, level, -level)
    logits = denoised().log()
    of_own = DenoisingCrossEntropy(exact(Denoising())).descended(logits, TEXTS, x0, level, -level)
    torch.testing.assert_close(of_mean, of_own)


@pytest.mark.parametrize("parameterization", [Mean(), Denoising()])
def test_training_by_cross_entropy_lowers_the_bound(parameterization: Mean | Denoising) -> None:
    torch.manual_seed(0)
    built = Model(PROCESS, LogLinear(), parameterization, TinyNetwork(TOKENS).double())
    objective = DenoisingCrossEntropy(built)
    optimizer = torch.optim.Adam(built.parameters(), lr=0.02)
    chosen = torch.multinomial(LAW.probs.flatten(), 100, replacement=True, generator=seeded())
    batch = Batch(TEXTS[chosen], torch.ones(100, LENGTH, dtype=torch.bool))
    weights = LAW.probs.flatten()

    def bound() -> float:
        with torch.no_grad():
            return float((weights * integrated_bound(UniformNelbo(built), TEXTS)).sum())

    before = bound()
    for step in range(60):
        draws = Draws.derive("denoiser", step=step, first=0, total=100)
        optimizer.zero_grad()
        (objective(batch, draws).total / batch.mask.sum()).backward()
        optimizer.step()
    entropy = -float((weights * weights.log()).sum())
    assert entropy < bound() < before - 0.05


def redrawn(chosen: Tensor, texts: Tensor, part: Mean | Denoising) -> Tensor:
    denoiser = Denoiser(exact(part))
    return denoiser.redraw(
        texts, ALPHA.expand(len(texts), 1), chosen, truncation=KeepAll(), generator=seeded(4)
    )


def test_the_score_of_a_position_is_its_law_given_the_others() -> None:
    """So a token drawn from it, all others given, leaves the law of noisy texts as it is."""
    for part in (Mean(), Denoising()):
        score = Denoiser(exact(part)).log_score(TEXTS, ALPHA).softmax(-1)
        table = noisy_law().view(TOKENS, TOKENS, TOKENS)
        for place in range(LENGTH):
            given = table.movedim(place, -1)
            given = given / given.sum(-1, keepdim=True)
            others = [TEXTS[:, other] for other in range(LENGTH) if other != place]
            # A network is told the noise level in float32.
            torch.testing.assert_close(score[:, place], given[tuple(others)], rtol=0, atol=1e-8)


def test_a_redrawn_token_has_this_law() -> None:
    text = torch.tensor([[2, 0, 1]]).expand(20_000, -1)
    chosen = torch.tensor([False, True, False]).expand_as(text)
    found = redrawn(chosen, text, Denoising())
    assert torch.equal(found[:, [0, 2]], text[:, [0, 2]])
    given = noisy_law().view(TOKENS, TOKENS, TOKENS)[2, :, 1]
    shares = torch.bincount(found[:, 1], minlength=TOKENS) / len(text)
    torch.testing.assert_close(shares.double(), given / given.sum(), rtol=0, atol=0.015)
