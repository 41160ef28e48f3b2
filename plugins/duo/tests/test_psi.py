"""Psi-samplers: the law of a step is the published one, and the sampler draws the chain of it."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from platform_core.backbone import Backbone
from platform_core.categorical import CleanOnly, KeepAll, Truncation
from platform_core.composition.compose import compose
from platform_core.model import Denoiser
from platform_core.process import LOG_ZERO, Absorbing, Interpolating, Uniform, log_one_hot
from platform_core.registry.loading import find_plugins
from platform_core.sampler import Ancestral, Prompt, Walk
from platform_core.schedule import Cosine, LogLinear
from platform_core.testing.golden import Golden
from platform_core.testing.toy import (
    TinyNetwork,
    ToyLaw,
    all_sequences,
    chi_square,
    exact_model,
    index_of,
    model,
    one_token_law,
    reverse_kernel,
    seeded,
    transition,
    two_token_law,
)
from platform_core.types import Hidden, Inputs, LogProbs, Noise, Probs, Tokens
from platform_duo.sampler import Psi, psi_step

GOLDEN = Golden(Path(__file__).parent / "golden")
tensors, tolerance = GOLDEN.tensors, GOLDEN.tolerance

both = pytest.mark.parametrize("process_class", [Absorbing, Uniform])
kinds = pytest.mark.parametrize(
    ("kind", "process"), [("absorbing", Absorbing(18)), ("uniform", Uniform(19))]
)
WALKS = [
    {"mode": "pure-pc"},
    {"mode": "constant-0.4"},
    {"mode": "max-capped-0.3"},
    {"mode": "max-rescale-0.6"},
    {"preset": "owt-loop", "middle_mode": "constant-remdm-0.2", "top_p": 1.0},
    {"preset": "cifar-duo", "middle_mode": "constant-0.3", "low_mode": "pure-pc"},
]
walks = pytest.mark.parametrize("options", WALKS, ids=str)


def level(value: float) -> Tensor:
    return torch.tensor([[value]], dtype=torch.float64)


def psi_rows(
    process: Interpolating,
    log_x0: LogProbs,
    x_t: Tokens,
    alpha_s: Noise,
    alpha_t: Noise,
    kappa: float,
) -> Probs:
    """The law of a step at each position, written out."""
    stay = torch.eye(process.num_states, dtype=log_x0.dtype)[x_t]
    can_change = process.changeable(x_t)[..., None]
    earlier, clean = (
        torch.where(can_change, process.posterior(log_x0, x_t, alpha, alpha_t), stay)
        for alpha in (alpha_s, torch.ones_like(alpha_s))
    )
    prior = process.prior(torch.arange(process.num_states))
    corrected = alpha_s[..., None] * clean + (1 - alpha_s)[..., None] * prior
    return kappa * earlier + (1 - kappa) * corrected


def psi_kernel(
    law: ToyLaw,
    process: Interpolating,
    alpha_s: Tensor,
    alpha_t: Tensor,
    kappa: float,
    truncation: Truncation | None = None,
) -> Tensor:
    """Chances `[x_t, x_s]` of one step of whole sequences under exact predictions."""
    states = all_sequences(process.num_states, law.length)
    log_x0 = (truncation or KeepAll())(law.log_x0(states, alpha_t, process))
    rows = psi_rows(process, log_x0, states, alpha_s, alpha_t, kappa)
    chances = [rows[:, position][:, states[:, position]] for position in range(law.length)]
    return torch.stack(chances).prod(0)


def kappas_of(sampler: Psi, alphas: Noise) -> list[Noise]:
    """Share of the posterior in each step."""
    ends = zip(sampler.mixings, pairwise(alphas), strict=True)
    return [mixing.kappa(alpha_s, alpha_t) for mixing, (alpha_t, alpha_s) in ends]


def psi_chain(law: ToyLaw, process: Interpolating, sampler: Psi, schedule=None) -> Tensor:
    """Law over `all_sequences` of a whole walk and its last call."""
    alphas = sampler.alphas(schedule or LogLinear(0), torch.device("cpu"))[:, 0]
    states = all_sequences(process.num_states, law.length)
    reached = process.prior(states).prod(-1)
    kappas = torch.cat(kappas_of(sampler, alphas)).tolist()
    for alpha_t, alpha_s, kappa in zip(alphas[:-1], alphas[1:], kappas, strict=True):
        step = (alpha_s[None], alpha_t[None], kappa)
        reached = reached @ psi_kernel(law, process, *step, sampler.truncation)
    clean = CleanOnly(law.num_tokens, sampler.truncation)
    return reached @ reverse_kernel(law, process, torch.ones_like(alphas[-1]), alphas[-1], clean)


class Fixed(Backbone):
    """A network that always says the same."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.register_buffer("logits", logits)
        self.weight, self.identity = nn.Parameter(torch.zeros(1)), nn.Identity()

    @property
    def decoder(self) -> nn.Module:
        return self.identity

    def encode(self, inputs: Inputs, sigma: Noise | None) -> Hidden:
        return self.logits


def published_step(kind: str) -> tuple[Tokens, LogProbs, Noise, Noise, dict[str, Tensor]]:
    """x_t, log_x0, alpha_s and alpha_t of the published steps, and their laws."""
    case, schedule = tensors(f"m.posterior_{kind}"), LogLinear(1e-3)
    alpha_s, alpha_t = schedule.alpha(case["t"] - case["dt"]), schedule.alpha(case["t"])
    log_x0 = case["p_x0"].log().clamp_min(LOG_ZERO)
    return case["xt"], log_x0, alpha_s, alpha_t, case


@kinds
@pytest.mark.parametrize("kappa", [1.0, 0.37, 0.0])
def test_the_law_of_a_step_is_the_reference_s(kind: str, process: Interpolating, kappa: float):
    x_t, log_x0, alpha_s, alpha_t, case = published_step(kind)
    law = psi_rows(process, log_x0, x_t, alpha_s, alpha_t, kappa)
    expected = case[f"output/q_sample_kappa{kappa}"]
    # The stored predictions sum to 1 in float32 only; under masks the reference keeps that.
    within = {
        "absorbing": {"rtol": 1e-6, "atol": 1e-7},
        "uniform": tolerance("m.posterior_uniform"),
    }
    torch.testing.assert_close(law, expected, **within[kind])


def pooled(drawn: Tokens, law: Tensor) -> tuple[Tokens, Tensor]:
    """Draws and their law with the states that are expected less than five times as one."""
    rare = law * len(drawn) < 5
    state = torch.where(rare, len(law), torch.arange(len(law)))
    return state[drawn], torch.cat((law.masked_fill(rare, 0), law[rare].sum()[None]))


@kinds
@pytest.mark.parametrize("kappa", [1.0, 0.37, 0.0])
def test_a_step_draws_from_the_reference_s_law(kind: str, process: Interpolating, kappa: float):
    x_t, log_x0, alpha_s, alpha_t, case = published_step(kind)
    many = 2_000
    x_t, log_x0, alpha_s, alpha_t = (
        each.repeat_interleave(many, 0) for each in (x_t, log_x0, alpha_s, alpha_t)
    )
    denoiser = Denoiser(model(process, Fixed(log_x0)))
    nowhere = torch.zeros_like(x_t, dtype=torch.bool)
    walk = Walk(denoiser, KeepAll(), seeded(), nowhere, x_t)
    x_s = psi_step(walk, x_t, alpha_s, alpha_t, level(kappa)).view(3, many, 12)
    expected = case[f"output/q_sample_kappa{kappa}"]
    values = [
        chi_square(*pooled(x_s[i, :, j], expected[i, j])) for i in range(3) for j in range(12)
    ]
    assert min(values) > 0.01 / len(values)


@both
@pytest.mark.parametrize("kappa", [1.0, 0.6, 0.0])
@pytest.mark.parametrize("levels", [(0.7, 0.4), (0.4, 0.4), (0.3, 0.0)])
def test_under_the_true_token_a_step_takes_its_noised_law_to_the_less_noised_one(
    process_class, kappa, levels
):
    process, (alpha_s, alpha_t) = process_class(3), (level(alpha) for alpha in levels)
    states = torch.arange(process.num_states)[None]
    for token in range(3):
        x0 = torch.full_like(states, token)
        rows = psi_rows(
            process,
            log_one_hot(x0, process.num_states, torch.float64),
            states,
            alpha_s,
            alpha_t,
            kappa,
        )
        possible = transition(process, x0, states, alpha_t)[0] > 0
        noised = transition(process, x0, states, alpha_t)[0, possible] @ rows[0, possible]
        expected = transition(process, x0, states, alpha_s)[0]
        torch.testing.assert_close(noised, expected, rtol=0, atol=1e-15)


@both
@walks
@pytest.mark.parametrize("steps", [2, 3, 20])
def test_one_position_returns_the_data_law_in_any_number_of_steps(process_class, options, steps):
    law = one_token_law()
    process = process_class(law.num_tokens)
    reached = psi_chain(law, process, Psi(steps=steps, **options))
    expected = nn.functional.pad(law.probs, (0, process.num_states - law.num_tokens))
    torch.testing.assert_close(reached, expected, rtol=0, atol=1e-13)


@both
@walks
@pytest.mark.parametrize("schedule", [LogLinear(0), Cosine(1e-3)], ids=["log-linear", "cosine"])
def test_the_sampler_draws_from_the_enumerated_chain(process_class, options, schedule):
    law = two_token_law()
    built = exact_model(law, process_class, schedule)
    sampler = Psi(steps=5, **options)
    tokens = sampler(built, (20_000, 2), seeded(3)).tokens
    expected = psi_chain(law, built.process, sampler, schedule)
    assert chi_square(index_of(tokens, built.process.num_states), expected) > 0.01


@both
@pytest.mark.parametrize("crossing", ["kept", "dropped"])
def test_a_truncation_is_of_the_prediction_and_goes_before_both_parts(process_class, crossing):
    law = two_token_law()
    built = exact_model(law, process_class)
    sampler = Psi(steps=3, mode="constant-0.5", top_p=0.6, crossing=crossing)
    tokens = sampler(built, (20_000, 2), seeded(3)).tokens
    expected = psi_chain(law, built.process, sampler)
    assert chi_square(index_of(tokens, built.process.num_states), expected) > 0.01
    assert (
        expected - psi_chain(law, built.process, Psi(3, mode="constant-0.5"))
    ).abs().max() > 0.01


@both
@pytest.mark.parametrize(
    ("mode", "near"), [("pure-pc", 0.03), ("constant-0.9", 0.005), ("max-capped-0.01", 0.005)]
)
def test_more_steps_come_closer_to_the_data_law(process_class, mode, near):
    """Positions move independently within a step, and corrections move far."""
    law = two_token_law()
    process = process_class(law.num_tokens)
    states = all_sequences(process.num_states, 2)
    clean = (states < 3).all(-1)
    distances = []
    for steps in (8, 32, 128):
        reached = psi_chain(law, process, Psi(steps=steps, mode=mode))
        distances.append(float((reached[clean] - law.probs.flatten()).abs().sum() / 2))
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < near


@both
def test_many_steps_sample_the_data(process_class: type[Interpolating]):
    law = two_token_law()
    built = exact_model(law, process_class)
    tokens = Psi(steps=100, mode="constant-0.9")(built, (3_000, 2), seeded(1)).tokens
    assert chi_square(index_of(tokens, 3), law.probs.flatten()) > 0.01


def tiny_model(process: Interpolating) -> nn.Module:
    torch.manual_seed(0)
    return model(process, TinyNetwork(process.num_states), LogLinear())


@both
@pytest.mark.parametrize("mode", ["pure-posterior", "constant-1", "constant-remdm-0"])
@pytest.mark.parametrize("final", ["ancestral", "greedy", "none"])
@pytest.mark.parametrize("prompted", [False, True])
def test_at_kappa_1_samples_are_the_ancestral_ones(process_class, mode, final, prompted):
    built = tiny_model(process_class(5))
    fixed = torch.rand(16, 8, generator=seeded(2)) < 0.4
    prompt = Prompt(torch.randint(5, (16, 8), generator=seeded(1)), fixed) if prompted else None
    options = {"steps": 6, "final": final, "top_p": 0.9, "crossing": "dropped"}
    one, other = seeded(), seeded()
    drawn = Psi(mode=mode, **options)(built, (16, 8), one, prompt)
    plain = Ancestral(**options)(built, (16, 8), other, prompt)
    assert torch.equal(drawn.tokens, plain.tokens)
    assert drawn.nfe == plain.nfe
    assert torch.equal(one.get_state(), other.get_state()), "as many numbers were drawn"


def test_segments_of_kappa_1_draw_no_more_than_the_ancestral_steps():
    """Two walks that differ at low noise alone go through the same texts until then."""
    built, options = tiny_model(Uniform(5)), {"steps": 10, "high_frac": 0.8, "final": "none"}
    read: list[Tensor] = []
    encode = built.backbone.encode
    built.backbone.encode = lambda x, sigma: read.append(x) or encode(x, sigma)
    Psi(mode="pure-posterior", low_mode="pure-pc", **options)(built, (4, 8), seeded())
    Ancestral(steps=10, final="none")(built, (4, 8), seeded())
    psi, ancestral = read[:10], read[10:]
    assert [torch.equal(*pair) for pair in zip(psi, ancestral, strict=True)] == [True] * 9 + [False]


def remdm_kernel(x0: Tensor, alpha_s: Tensor, alpha_t: Tensor, sigma: Tensor) -> Tensor:
    """ReMDM's chances `[x_t, x_s]` of one token, the last state a mask."""
    mask = len(x0)
    kernel = (1 - sigma) * torch.eye(mask + 1, dtype=torch.float64)
    kernel[:, mask] = sigma
    kernel[mask, :mask] = (alpha_s - (1 - sigma) * alpha_t) / (1 - alpha_t) * x0
    kernel[mask, mask] = (1 - alpha_s - sigma * alpha_t) / (1 - alpha_t)
    return kernel


@pytest.mark.parametrize(
    ("mode", "sigma_of"),
    [
        ("max-capped-0.05", lambda limit: limit.clamp_max(0.05)),
        ("max-rescale-0.05", lambda limit: 0.05 * limit),
        ("max-rescale-squared-0.5", lambda limit: 0.5 * limit.clamp_max(0.5)),
        ("constant-remdm-0.05", lambda limit: torch.full_like(limit, 0.05)),
    ],
)
def test_under_masks_remdm_is_a_psi_sampler(mode: str, sigma_of):
    """As long as sigma is at most 1 - alpha_s; kappa would have to be negative above it."""
    x0, process = one_token_law().probs, Absorbing(3)
    sampler = Psi(steps=12, mode=mode)
    alphas = sampler.alphas(LogLinear(0), torch.device("cpu"))
    compared = 0
    for alpha_t, alpha_s, kappa in zip(
        alphas, alphas[1:], kappas_of(sampler, alphas), strict=False
    ):
        sigma = sigma_of(((1 - alpha_s) / alpha_t).clamp_max(1))
        if sigma > 1 - alpha_s:
            assert kappa == 0
            continue
        torch.testing.assert_close(sigma, (1 - kappa) * (1 - alpha_s), rtol=1e-12, atol=1e-15)
        log_x0 = nn.functional.pad(x0.log(), (0, 1), value=LOG_ZERO).expand(1, 4, 4)
        rows = psi_rows(process, log_x0, torch.arange(4)[None], alpha_s[0], alpha_t[0], kappa[0])
        expected = remdm_kernel(x0, alpha_s[0, 0], alpha_t[0, 0], sigma[0, 0])
        torch.testing.assert_close(rows[0], expected, rtol=0, atol=1e-14)
        compared += 1
    assert compared >= 11


@both
@walks
def test_prompts_stay_in_place_at_every_call(process_class, options, monkeypatch):
    built = tiny_model(process_class(5))
    tokens = torch.randint(5, (8, 6), generator=seeded(1))
    prompt = Prompt(tokens, torch.rand(8, 6, generator=seeded(2)) < 0.4)
    read: list[Tensor] = []
    encode = built.backbone.encode
    monkeypatch.setattr(
        built.backbone, "encode", lambda x, sigma: read.append(x) or encode(x, sigma)
    )
    sample = Psi(steps=8, **options)(built, (8, 6), seeded(), prompt)
    assert len(read) >= 4
    assert all(torch.equal(x[prompt.fixed], tokens[prompt.fixed]) for x in (*read, sample.tokens))
    assert not torch.equal(sample.tokens, tokens)


@both
def test_a_prompt_of_everything_needs_no_network(process_class: type[Interpolating]):
    built = tiny_model(process_class(5))
    tokens = torch.randint(5, (2, 4), generator=seeded())
    prompt = Prompt(tokens, torch.ones(2, 4).bool())
    sample = Psi(steps=3, mode="pure-pc")(built, (2, 4), seeded(), prompt)
    assert torch.equal(sample.tokens, tokens)
    assert sample.nfe == built.backbone.calls == 0


@both
@walks
def test_each_step_needs_one_call_at_most(process_class, options):
    built = tiny_model(process_class(5))
    sample = Psi(steps=20, **options)(built, (4, 8), seeded())
    assert sample.nfe == built.backbone.calls <= 21
    if process_class is Uniform:
        assert sample.nfe >= 20


def test_a_pause_of_pure_posterior_steps_costs_nothing():
    built = tiny_model(Uniform(5))
    sample = Psi(steps=20, preset="cifar-loop", mode="pure-posterior")(built, (4, 8), seeded())
    assert sample.nfe == 9 + 1 + 1, "at high noise, at low noise and at the end"


def test_under_masks_only_those_that_become_tokens_are_decoded(monkeypatch):
    built = model(Absorbing(5), TinyNetwork(6), LogLinear())
    with torch.no_grad():
        built.backbone.head.bias[5] -= 50  # nothing on the mask
    decoded: list[int] = []
    head = built.backbone.head
    forward = head.forward
    monkeypatch.setattr(head, "forward", lambda h: decoded.append(len(h)) or forward(h))
    walk = Walk.begin(built, KeepAll(), shape=(500, 8), generator=seeded(), prompt=None)
    x_t = torch.where(torch.arange(8) < 4, walk.noise, 1)
    x_s = psi_step(walk, x_t, level(0.5), level(0.4), level(0.3))
    appeared, hidden = (x_t == 5) & (x_s != 5), (x_t != 5) & (x_s == 5)
    assert decoded == [int(appeared.sum())]
    assert hidden.sum() / 2000 == pytest.approx(0.7 * 0.5, abs=0.03)
    assert (x_s[(x_t != 5) & ~hidden] == 1).all(), "other tokens are carried over"


@both
def test_equal_seeds_draw_equal_samples(process_class: type[Interpolating]):
    built = tiny_model(process_class(5))
    one, same, other = (
        Psi(steps=4, mode="constant-0.5")(built, (4, 8), seeded(seed)).tokens for seed in (0, 0, 1)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("process", ["duo", "absorbing", "uniform"])
def test_it_goes_with_masks_and_uniform_noise(process: str):
    words = ["--process", process, "--sampler", "psi", "--sampler.preset", "owt-loop"]
    words += ["--backbone", "small"]
    plugins = find_plugins({"PLATFORM_PLUGINS": "platform_core.testing.stubs"})
    composition, _ = compose(words, plugins, prog="test", environ={})
    assert isinstance(composition.build(10).sampler, Psi)
