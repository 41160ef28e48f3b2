"""ReMDM draws the enumerated chain of its formulas, and without remasking the ancestral one."""

import pytest
import torch
from torch import Tensor

from platform_core.sampler import Ancestral, Prompt, Walk, even_times
from platform_core.schedule import Cosine, LogLinear, Schedule
from platform_core.testing.toy import (
    TinyNetwork,
    ToyLaw,
    all_sequences,
    chi_square,
    exact_model,
    index_of,
    model,
    one_token_law,
    random_law,
    reverse_kernel,
    seeded,
    two_token_law,
)
from platform_mdlm.parameterization import Subs
from platform_mdlm.process import Mdlm
from platform_mdlm.remasking import Cap, Confidence, Loop, Remasking, Rescale
from platform_mdlm.sampler import Draft, Remdm

STRATEGIES: dict[str, Remasking] = {
    "cap": Cap(0.2),
    "rescale": Rescale(0.4),
    "loop": Loop(0.3, t_on=0.7, t_off=0.2, alpha_on=0.6),
}
LOOP = {"t_on": 0.7, "t_off": 0.2, "alpha_on": 0.6}
each = pytest.mark.parametrize("strategy", list(STRATEGIES))


def sampler(strategy: str, **options) -> Remdm:
    return Remdm(strategy=strategy, eta=STRATEGIES[strategy].eta, **LOOP, **options)


def level(value: float) -> Tensor:
    return torch.tensor([[value]], dtype=torch.float64)


def token_kernel(x0: Tensor, alpha_s: Tensor, alpha_t: Tensor, sigma: Tensor) -> Tensor:
    """Chances `[x_t, x_s]` of one token under the prediction x0, the last state a mask."""
    mask = len(x0)
    kernel = (1 - sigma) * torch.eye(mask + 1, dtype=torch.float64)
    kernel[:, mask] = sigma
    kernel[mask, :mask] = (alpha_s - (1 - sigma) * alpha_t) / (1 - alpha_t) * x0
    kernel[mask, mask] = (1 - alpha_s - sigma * alpha_t) / (1 - alpha_t)
    return kernel


def text_kernel(law: ToyLaw, alpha_s: Tensor, alpha_t: Tensor, sigma: Tensor) -> Tensor:
    """The same of whole texts, each of whose tokens has its own prediction."""
    process = Mdlm(law.num_tokens)
    states = all_sequences(process.num_states, law.length)
    predictions = law.log_x0(states, alpha_t, process).exp()[..., :-1]
    kernel = torch.ones(len(states), len(states), dtype=torch.float64)
    for row, state in enumerate(states):
        for place, token in enumerate(state):
            by_token = token_kernel(predictions[row, place], alpha_s, alpha_t, sigma)
            kernel[row] *= by_token[token, states[:, place]]
    return kernel


def chain(law: ToyLaw, schedule: Schedule, remasking: Remasking, steps: int) -> Tensor:
    """Law over all texts, masks included, of so many steps and the last call."""
    process = Mdlm(law.num_tokens)
    times = even_times(steps, torch.device("cpu"))
    alphas = remasking.alpha(times, schedule)
    nothing = torch.zeros(1, 1, dtype=torch.float64)
    states = all_sequences(process.num_states, law.length)
    reached = process.prior(states).prod(-1)
    for t, alpha_t, alpha_s in zip(times[:-1], alphas[:-1], alphas[1:], strict=True):
        limit = ((1 - alpha_s) / alpha_t).clamp_max(1)
        sigma = remasking.sigma(t, limit, nothing)
        reached = reached @ text_kernel(law, alpha_s[0, 0], alpha_t[0, 0], sigma[0, 0])
    return reached @ reverse_kernel(law, process, torch.ones_like(alphas[-1]), alphas[-1])


@each
@pytest.mark.parametrize("law", [one_token_law(), two_token_law()], ids=["one", "two"])
@pytest.mark.parametrize("schedule", [LogLinear(0), Cosine(1e-3)])
def test_the_sampler_draws_from_the_enumerated_chain(strategy, law, schedule):
    built = exact_model(law, Mdlm, schedule, Subs())
    tokens = sampler(strategy, steps=5)(built, (20_000, law.length), seeded(4)).tokens
    expected = chain(law, schedule, STRATEGIES[strategy], 5)
    assert chi_square(index_of(tokens, law.num_tokens + 1), expected) > 0.01


@each
def test_one_token_has_its_law_in_any_number_of_steps(strategy: str):
    law = one_token_law()
    reached = chain(law, LogLinear(0), STRATEGIES[strategy], 5)
    torch.testing.assert_close(reached[:3], law.probs, rtol=1e-12, atol=1e-12)


def test_the_chain_comes_closer_to_the_data_the_less_each_step_does():
    law, distances = two_token_law(), []
    for steps in (4, 16, 64):
        reached = chain(law, LogLinear(0), Cap(0.4 / steps), steps)
        states = all_sequences(4, 2)
        clean = (states < 3).all(-1)
        distances.append(float((reached[clean] - law.probs.flatten()).abs().sum() / 2))
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 5e-3


@each
@pytest.mark.parametrize("schedule", [LogLinear(0), LogLinear(1e-3), Cosine(0)])
def test_every_step_takes_the_noised_data_to_less_noised_data(strategy, schedule):
    """q(x_t | x_0) goes to q(x_s | x_0) under the true x_0: what makes sigma_max the limit."""
    remasking = STRATEGIES[strategy]
    times = even_times(9, torch.device("cpu"))
    alphas = remasking.alpha(times, schedule)
    assert (alphas.diff(dim=0) >= 0).all()
    x0 = torch.tensor([1.0, 0.0], dtype=torch.float64)
    for t, alpha_t, alpha_s in zip(times[:-1], alphas[:-1], alphas[1:], strict=True):
        limit = ((1 - alpha_s) / alpha_t).clamp_max(1)
        sigma = remasking.sigma(t, limit, torch.zeros(1, 1).double())
        kernel = token_kernel(x0, alpha_s[0, 0], alpha_t[0, 0], sigma[0, 0])
        assert (kernel >= -1e-15).all()
        noised, less = (torch.stack((a, 0 * a, 1 - a)) for a in (alpha_t[0, 0], alpha_s[0, 0]))
        torch.testing.assert_close(noised @ kernel, less, rtol=0, atol=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["cap", "rescale", "confidence"])
@pytest.mark.parametrize("top_p", [1.0, 0.8])
@pytest.mark.parametrize("prompted", [False, True])
def test_without_remasking_samples_are_the_ancestral_ones(strategy, top_p, prompted):
    torch.manual_seed(0)
    built = model(Mdlm(5), TinyNetwork(6), LogLinear(), Subs())
    fixed = torch.rand(16, 8, generator=seeded(2)) < 0.4
    prompt = Prompt(torch.randint(5, (16, 8), generator=seeded(1)), fixed) if prompted else None
    remdm = Remdm(steps=6, strategy=strategy, eta=0.0, top_p=top_p, crossing="kept")
    drawn = remdm(built, (16, 8), seeded(), prompt)
    plain = Ancestral(steps=6, top_p=top_p)(built, (16, 8), seeded(), prompt)
    assert torch.equal(drawn.tokens, plain.tokens)
    assert drawn.nfe == plain.nfe


@each
def test_tokens_are_masked_again_and_given_ones_are_not(strategy, monkeypatch):
    torch.manual_seed(0)
    built = model(Mdlm(5), TinyNetwork(6), LogLinear(), Subs())
    fixed = torch.arange(8).expand(32, 8) < 3
    given = torch.randint(5, (32, 8), generator=seeded(1))
    read: list[Tensor] = []
    encode = built.backbone.encode
    monkeypatch.setattr(
        built.backbone, "encode", lambda x, sigma: read.append(x) or encode(x, sigma)
    )
    sampler(strategy, steps=16)(built, (32, 8), seeded(), Prompt(given, fixed))
    again = [(now != 5) & (later == 5) for now, later in zip(read, read[1:], strict=False)]
    assert any(masked.any() for masked in again)
    assert all(torch.equal(x_t[fixed], given[fixed]) for x_t in read)


def test_the_strategies_have_their_formulas():
    t, confidence = level(0.5), torch.zeros(1, 3).double()
    assert Cap(0.02).sigma(t, level(0.5), confidence).item() == 0.02
    assert Cap(0.02).sigma(t, level(0.01), confidence).item() == 0.01
    assert Rescale(0.1).sigma(t, level(0.5), confidence).item() == pytest.approx(0.05)
    loop = Loop(0.02)
    sigma = [loop.sigma(level(time), level(0.5), confidence).item() for time in (0.56, 0.5, 0.05)]
    assert sigma == [0, 0.02, 0]
    alpha = [loop.alpha(level(time), LogLinear()).item() for time in (1, 0.775, 0.55, 0.3, 0.05, 0)]
    assert alpha == pytest.approx([0, 0.45, 0.9, 0.9, 0.9, 1])


def test_the_least_confident_tokens_are_masked_first():
    confidence = torch.tensor([[0.9, 0.1, torch.inf, 0.5], [torch.inf] * 4]).double()
    sigma = Confidence(0.5).sigma(level(0.5), level(0.4), confidence)
    weights = (-confidence[0]).exp() / (-confidence[0]).exp().sum()
    torch.testing.assert_close(sigma[0], 0.2 * weights)
    assert sigma[0].argmax() == 1
    assert sigma[0, 2] == 0
    assert (sigma[1] == 0).all(), "masks and given tokens alone"


def test_confidence_is_the_probability_that_a_token_was_drawn_with():
    law = two_token_law()
    built = exact_model(law, Mdlm, parameterization=Subs())
    masks = torch.full((50, 2), 3)
    places = torch.tensor([[True, False]]).expand(50, 2)
    remdm = Remdm(top_p=0.9)
    walk = Walk.begin(built, remdm.truncation, shape=(50, 2), generator=seeded(), prompt=None)
    draft = remdm._draw(walk, Draft.begin(walk.noise), places, level(0.3))
    chance = remdm.truncation(law.probs.sum(1).log()[None])[0].exp()
    torch.testing.assert_close(draft.confidence[:, 0], chance[draft.tokens[:, 0]])
    assert draft.confidence[:, 1].isinf().all()
    assert (draft.tokens[:, 1] == 3).all()
    again = draft.without(places, 3)
    assert torch.equal(again.tokens, masks)
    assert again.confidence.isinf().all()


@pytest.mark.slow
def test_many_steps_with_confidence_stay_close_to_the_data():
    """Which token goes depends on the tokens, so the law is near the data's, not equal to it."""
    law = random_law(2, 2, seed=6)
    built = exact_model(law, Mdlm, parameterization=Subs())
    remdm = Remdm(steps=64, strategy="confidence", eta=0.05)
    tokens = remdm(built, (20_000, 2), seeded(1)).tokens
    found = torch.bincount(index_of(tokens, 2), minlength=4) / 20_000
    assert (found - law.probs.flatten()).abs().sum() / 2 < 0.03


@pytest.mark.parametrize("eta", [-0.1, 1.1, float("nan")])
@pytest.mark.parametrize("strategy", ["cap", "rescale", "confidence", "loop"])
def test_an_eta_that_is_no_chance_is_refused(eta: float, strategy: str):
    with pytest.raises(ValueError, match=r"eta is .*for example 0\.02"):
        Remdm(strategy=strategy, eta=eta)


@pytest.mark.parametrize("option", [{"t_on": 0.01}, {"t_off": 0}, {"t_on": 1}, {"alpha_on": 1}])
def test_a_loop_that_cannot_be_is_refused(option: dict[str, float]):
    with pytest.raises(ValueError, match="the paper takes"):
        Remdm(strategy="loop", **option)


def test_fewer_than_one_step_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        Remdm(steps=0)
