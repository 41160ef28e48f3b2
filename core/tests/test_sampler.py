"""Ancestral sampling: the enumerated chain returns the data law, the sampler draws that chain."""

import pytest
import torch
from torch import Tensor, nn

from platform_core.categorical import CleanOnly, KeepAll, Nucleus
from platform_core.correction import Random
from platform_core.model import Denoiser
from platform_core.process import Absorbing, Interpolating, Uniform
from platform_core.sampler import LAST_TIME, Ancestral, Prompt, Walk
from platform_core.schedule import LogLinear
from platform_core.testing.toy import (
    ExactDenoiser,
    TinyNetwork,
    ToyLaw,
    all_sequences,
    chain_law,
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

both = pytest.mark.parametrize("process_class", [Absorbing, Uniform])
finals = pytest.mark.parametrize("final", ["ancestral", "greedy", "none"])


def even_grid(steps: int, last: float = 0.0) -> Tensor:
    """Noise levels of alpha = 1 - t from t = 1 to `last`."""
    return 1 - torch.linspace(1, last, steps + 1, dtype=torch.float64)


def data_law(law: ToyLaw, process: Interpolating) -> Tensor:
    """The law over all states, masks included."""
    states = all_sequences(process.num_states, law.length)
    padding = (0, process.num_states - law.num_tokens) * law.length
    return nn.functional.pad(law.probs, padding)[tuple(states.unbind(-1))]


def distance(one: Tensor, other: Tensor) -> float:
    """Total variation."""
    return float((one - other).abs().sum() / 2)


@both
@pytest.mark.parametrize("law", [one_token_law(), random_law(6, 1, seed=2)])
@pytest.mark.parametrize("steps", [1, 2, 5, 50])
def test_one_position_returns_the_data_law_in_any_number_of_steps(process_class, law, steps):
    process = process_class(law.num_tokens)
    reached = chain_law(law, process, even_grid(steps))
    torch.testing.assert_close(reached, data_law(law, process), rtol=0, atol=1e-13)


@pytest.mark.slow
@both
def test_two_positions_approach_the_data_law_as_steps_grow(process_class: type[Interpolating]):
    """Positions move independently within a step: the error is of first order in its size."""
    law = two_token_law()
    process = process_class(law.num_tokens)
    data = data_law(law, process)
    errors = [distance(chain_law(law, process, even_grid(n)), data) for n in (1, 64, 128, 256, 512)]
    assert errors[0] > 0.1
    assert errors[-1] < 1e-3
    ratios = [coarse / fine for coarse, fine in zip(errors[1:-1], errors[2:], strict=True)]
    assert ratios == pytest.approx([2, 2, 2], abs=0.1)


def expected_law(
    law: ToyLaw, process: Interpolating, *, steps: int, final: str, top_p: float = 1.0
) -> Tensor:
    """What `Ancestral` draws from, under alpha = 1 - t."""
    truncation = Nucleus(top_p) if top_p < 1 else KeepAll()
    alphas = even_grid(steps, LAST_TIME)
    reached = chain_law(law, process, alphas, truncation)
    if final == "none":
        return reached
    states = all_sequences(process.num_states, law.length)
    if final == "greedy":
        best = law.log_x0(states, alphas[-1], process)[..., : law.num_tokens].argmax(-1)
        clean = torch.where(process.changeable(states), best, states)
        landed = index_of(clean, process.num_states)
        return torch.zeros_like(reached).index_add(0, landed, reached)
    clean, truncation = torch.ones_like(alphas[-1]), CleanOnly(law.num_tokens, truncation)
    return reached @ reverse_kernel(law, process, clean, alphas[-1], truncation)


@both
@finals
@pytest.mark.parametrize("top_p", [1.0, 0.6])
def test_the_sampler_draws_from_the_enumerated_chain(process_class, final, top_p):
    law, steps = two_token_law(), 3
    built = exact_model(law, process_class)
    sampler = Ancestral(steps=steps, final=final, top_p=top_p)
    tokens = sampler(built, (20_000, 2), seeded(3)).tokens
    expected = expected_law(law, built.process, steps=steps, final=final, top_p=top_p)
    assert chi_square(index_of(tokens, built.process.num_states), expected) > 0.01


@pytest.mark.slow
@both
def test_many_steps_sample_the_data(process_class: type[Interpolating]):
    law = two_token_law()
    built = exact_model(law, process_class)
    tokens = Ancestral(steps=64)(built, (3_000, 2), seeded(1)).tokens
    assert chi_square(index_of(tokens, law.num_tokens), law.probs.flatten()) > 0.01


@both
def test_a_step_by_rows_has_the_law_of_the_dense_step(process_class: type[Interpolating]):
    """Score of every position and `reverse`, against decoding and drawing row by row."""
    law = random_law(4, 2, seed=9)
    built = exact_model(law, process_class)
    denoiser = Denoiser(built)
    alpha_s, alpha_t = (torch.tensor([[level]], dtype=torch.float64) for level in (0.7, 0.4))
    noise = 4 if process_class is Absorbing else 1
    x_t = torch.tensor([[noise, 2]])
    dense = denoiser.process.reverse(denoiser.log_score(x_t, alpha_t), x_t, alpha_s, alpha_t)
    many = x_t.expand(20_000, 2)
    drawn = denoiser.draw_reverse(many, alpha_s, alpha_t, truncation=KeepAll(), generator=seeded())
    for position in range(2):
        if built.process.changeable(x_t)[0, position]:
            assert chi_square(drawn[:, position], dense[0, position]) > 0.01
        else:
            assert (drawn[:, position] == x_t[0, position]).all()


def tiny_model(process: Interpolating, *, mask_bias: float = 0.0) -> tuple[nn.Module, TinyNetwork]:
    torch.manual_seed(0)
    backbone = TinyNetwork(process.num_states)
    with torch.no_grad():
        backbone.head.bias[process.vocab_size :] += mask_bias
    return model(process, backbone, LogLinear()), backbone


@pytest.mark.parametrize("final", ["ancestral", "greedy"])
@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_no_masks_are_left_even_when_the_network_predicts_them(final: str, top_p: float):
    built, _ = tiny_model(Absorbing(5), mask_bias=8.0)
    tokens = Ancestral(steps=4, final=final, top_p=top_p)(built, (64, 16), seeded()).tokens
    assert tokens.max() < 5
    assert tokens.min() >= 0
    left = Ancestral(steps=4, final="none", top_p=top_p)(built, (64, 16), seeded()).tokens
    assert (left == 5).any(), "without a last call they stay"


@both
@finals
def test_prompts_stay_in_place_at_every_call(process_class, final, monkeypatch):
    process = process_class(5)
    built, backbone = tiny_model(process)
    tokens = torch.randint(5, (8, 6), generator=seeded(1))
    prompt = Prompt(tokens, torch.rand(8, 6, generator=seeded(2)) < 0.4)
    read = []
    encode = backbone.encode

    def listen(inputs: Tensor, sigma: Tensor | None) -> Tensor:
        read.append(inputs)
        return encode(inputs, sigma)

    monkeypatch.setattr(backbone, "encode", listen)
    sample = Ancestral(steps=5, final=final)(built, (8, 6), seeded(), prompt)
    assert len(read) >= 5
    for x in (*read, sample.tokens):
        assert torch.equal(x[prompt.fixed], tokens[prompt.fixed])
    assert not torch.equal(sample.tokens, tokens)


@pytest.mark.parametrize("given_token", [0, 1, 2])
def test_a_prompt_conditions_masked_text_exactly(given_token: int):
    law = two_token_law()
    built = exact_model(law, Absorbing)
    prompt = Prompt(
        torch.tensor([[given_token, 0]]).expand(5_000, 2),
        torch.tensor([[True, False]]).expand(5_000, 2),
    )
    tokens = Ancestral(steps=4)(built, (5_000, 2), seeded(4), prompt).tokens
    assert chi_square(tokens[:, 1], law.probs[given_token] / law.probs[given_token].sum()) > 0.01


@both
def test_a_prompt_of_everything_needs_no_network(process_class: type[Interpolating]):
    built, backbone = tiny_model(process_class(5))
    tokens = torch.randint(5, (2, 4), generator=seeded())
    sample = Ancestral(steps=3)(built, (2, 4), seeded(), Prompt(tokens, torch.ones(2, 4).bool()))
    assert torch.equal(sample.tokens, tokens)
    assert sample.nfe == backbone.calls == 0


@both
def test_equal_seeds_draw_equal_samples(process_class: type[Interpolating]):
    built, _ = tiny_model(process_class(5))
    one, same, other = (
        Ancestral(steps=4)(built, (4, 8), seeded(seed)).tokens for seed in (0, 0, 1)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@both
@finals
def test_nfe_is_the_number_of_calls_of_the_network(process_class, final):
    law, process = two_token_law(), process_class(3)
    backbone = ExactDenoiser(law, process)
    sample = Ancestral(steps=7, final=final)(model(process, backbone), (64, 2), seeded())
    assert sample.nfe == backbone.calls
    if process_class is Uniform:
        assert sample.nfe == 7 + (final != "none")
    else:
        assert sample.nfe <= 7, "nothing is left to do after the last mask is gone"


def test_each_mask_is_decoded_once_and_steps_without_news_need_no_network(monkeypatch):
    """A mask is decoded when it becomes a token, not at every step until then."""
    built, backbone = tiny_model(Absorbing(5))
    decoded = []
    forward = backbone.head.forward
    monkeypatch.setattr(backbone.head, "forward", lambda h: decoded.append(len(h)) or forward(h))
    sample = Ancestral(steps=50)(built, (1, 6), seeded())
    # The network puts some mass on the mask: then a mask stays one, and is decoded again.
    assert 6 <= sum(decoded) <= 12
    assert sample.nfe == backbone.calls == len(decoded) <= 12


@both
def test_sampling_needs_no_gradient(process_class: type[Interpolating]):
    built, backbone = tiny_model(process_class(5))
    Ancestral(steps=2)(built, (2, 4), seeded())
    assert all(parameter.grad is None for parameter in backbone.parameters())


@pytest.mark.parametrize("steps", [0, -1])
def test_fewer_than_one_step_is_refused(steps: int):
    with pytest.raises(ValueError, match="at least 1"):
        Ancestral(steps=steps)


@both
def test_corrections_keep_the_law_of_exact_predictions(process_class: type[Interpolating]) -> None:
    """A token drawn again, given all others, at any level: from q_t to q_t, text by text."""
    law = two_token_law()
    built = exact_model(law, process_class)
    walk = Walk.begin(built, KeepAll(), shape=(40_000, 2), generator=seeded(4), prompt=None)
    for alpha in (0.2, 0.8):
        level = torch.tensor([[alpha]], dtype=torch.float64)
        chosen = torch.multinomial(
            law.probs.flatten(), 40_000, replacement=True, generator=seeded(1)
        )
        x_t = built.process.corrupt(law.sequences()[chosen], level, seeded(2))
        before = torch.bincount(index_of(x_t, built.process.num_states), minlength=25) / 40_000
        after = walk.correct(x_t, level, Random(1))
        shares = torch.bincount(index_of(after, built.process.num_states), minlength=25) / 40_000
        assert ((after != x_t).sum(-1) <= 1).all()
        assert (after != x_t).any()
        assert distance(before, shares) < 0.012


@both
def test_corrections_mend_what_coarse_steps_break(process_class: type[Interpolating]) -> None:
    """In two steps both tokens are drawn at once, as if independent."""
    law = two_token_law()
    built = exact_model(law, process_class)

    def off(**options: int) -> float:
        drawn = Ancestral(steps=2, **options)(built, (20_000, 2), seeded(3))
        shares = torch.bincount(index_of(drawn.tokens, law.num_tokens), minlength=16) / 20_000
        return distance(shares.double()[: law.probs.numel()], law.probs.flatten())

    assert off(corrections=4) < off() / 2


def test_corrections_leave_a_prompt_and_count_as_evaluations() -> None:
    built = exact_model(two_token_law(), Uniform)
    prompt = Prompt(
        torch.tensor([[2, 0]]).expand(50, 2), torch.tensor([[True, False]]).expand(50, 2)
    )
    drawn = Ancestral(steps=3, corrections=2, redrawn=5)(built, (50, 2), seeded(), prompt)
    assert (drawn.tokens[:, 0] == 2).all()
    assert drawn.nfe == 3 * (1 + 2) + 1


@pytest.mark.parametrize("options", [{"corrections": -1}, {"redrawn": 0}])
def test_corrections_that_cannot_be_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="corrections must be at least 0"):
        Ancestral(**options)
