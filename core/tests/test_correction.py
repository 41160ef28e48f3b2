"""Corrections by enumeration: which tokens they choose, what they draw, what stays invariant."""

import math

import pytest
import torch
from torch import Tensor

from platform_core.categorical import KeepAll
from platform_core.composition.compose import compose
from platform_core.correction import (
    MENDING_TIME,
    Correction,
    LeastLikely,
    Random,
    SelfCorrection,
)
from platform_core.errors import UsageError
from platform_core.model import Denoiser
from platform_core.process import Absorbing, Diffusion, Interpolating, Uniform
from platform_core.registry.loading import find_plugins
from platform_core.sampler import Ancestral, Prompt
from platform_core.testing.toy import (
    ToyLaw,
    all_sequences,
    chi_square,
    exact_model,
    index_of,
    marginals,
    random_law,
    seeded,
    two_token_law,
)

both = pytest.mark.parametrize("process_class", [Absorbing, Uniform])
NUMBER = 40_000


def level(alpha: float) -> Tensor:
    return torch.tensor([[alpha]], dtype=torch.float64)


def noisy(law: ToyLaw, process: Diffusion, alpha: float) -> Tensor:
    """q_t of whole texts, `[states] * length`."""
    found, step = law.probs, marginals(process, level(alpha)[0])[0]
    for _ in range(law.length):  # the first dimension is taken, and comes back as the last
        found = torch.tensordot(found, step, dims=([0], [0]))
    return found


def corrected(how: Correction, built, texts: Tensor, alpha: float, seed: int = 1) -> Tensor:
    return how(
        Denoiser(built),
        texts,
        level(alpha).expand(len(texts), 1),
        torch.ones_like(texts, dtype=torch.bool),
        truncation=KeepAll(),
        generator=seeded(seed),
    )


def drawn(probs: Tensor, seed: int = 0) -> Tensor:
    """Texts drawn from a table."""
    chosen = torch.multinomial(probs.flatten(), NUMBER, replacement=True, generator=seeded(seed))
    return all_sequences(probs.shape[0], probs.dim())[chosen]


def shares(texts: Tensor, num_states: int) -> Tensor:
    counts = torch.bincount(index_of(texts, num_states), minlength=num_states ** texts.shape[1])
    return counts.double() / len(texts)


@both
@pytest.mark.parametrize("alpha", [0.3, 0.8])
def test_a_token_that_was_not_chosen_for_what_it_is_keeps_the_law(
    process_class: type[Interpolating], alpha: float
) -> None:
    built = exact_model(two_token_law(), process_class)
    before = noisy(two_token_law(), built.process, alpha)
    after = corrected(LeastLikely(1, considered=1), built, drawn(before), alpha)
    assert chi_square(index_of(after, built.process.num_states), before.flatten()) > 0.01


def least_likely_kernel(probs: Tensor) -> Tensor:
    """Probabilities `[text, text]` of drawing the least likely of two tokens again."""
    size = len(probs)
    given = (probs / probs.sum(0, keepdim=True), probs / probs.sum(1, keepdim=True))
    kernel = torch.zeros(size, size, size, size, dtype=torch.float64)
    for a in range(size):
        for b in range(size):
            if given[0][a, b] <= given[1][a, b]:
                kernel[a, b, :, b] = given[0][:, b]
            else:
                kernel[a, b, a] = given[1][a]
    return kernel.view(size**2, size**2)


def test_the_least_likely_token_is_drawn_given_the_others() -> None:
    """Under uniform noise both conditionals are those of one call; text by text."""
    built = exact_model(two_token_law(), Uniform)
    kernel = least_likely_kernel(noisy(two_token_law(), built.process, 0.9))
    for place, text in enumerate(all_sequences(3, 2)):
        after = corrected(LeastLikely(1, 2), built, text.expand(5000, 2), 0.9, seed=place)
        assert chi_square(index_of(after, 3), kernel[place]) > 1e-3


def test_a_choice_by_what_a_token_is_changes_the_law_in_favour_of_likely_texts() -> None:
    probs = noisy(two_token_law(), Uniform(3), 0.9).flatten()
    kernel = least_likely_kernel(probs.view(3, 3))
    after = probs @ kernel
    assert (after - probs).abs().sum() / 2 > 0.01
    assert (after * probs.log()).sum() > (probs * probs.log()).sum()


def test_from_tokens_drawn_as_if_independent_the_choice_gains_more_than_chance() -> None:
    law = two_token_law()
    built = exact_model(law, Uniform)
    texts = drawn(law.probs.sum(1, keepdim=True) * law.probs.sum(0, keepdim=True))

    def likelihood(how: Correction) -> float:
        return float(law.log_prob(corrected(how, built, texts, 0.999)).mean())

    assert likelihood(LeastLikely(1, 2)) > likelihood(Random(1)) + 0.05
    assert likelihood(Random(1)) > float(law.log_prob(texts).mean()) + 0.05


@pytest.mark.parametrize("considered", [1, 2])
def test_under_masks_the_tokens_that_are_looked_at_are_hidden(considered: int) -> None:
    """Both hidden: each is judged and drawn by its marginal; one: by its law given the other."""
    law = two_token_law()
    built = exact_model(law, Absorbing)
    text = torch.tensor([2, 1])
    after = corrected(LeastLikely(1, considered), built, text.expand(NUMBER, 2), 0.5)
    expected = torch.zeros(3, 3, dtype=torch.float64)
    first, second = law.probs.sum(1), law.probs.sum(0)
    if considered == 1:
        expected[:, 1] += law.probs[:, 1] / second[1] / 2
        expected[2] += law.probs[2] / first[2] / 2
    elif first[2] < second[1]:
        expected[:, 1] = first
    else:
        expected[2] = second
    assert chi_square(index_of(after, 3), expected.flatten()) > 0.01


def test_masks_and_fixed_tokens_are_left_alone() -> None:
    built = exact_model(random_law(4, 6, seed=1), Absorbing)
    texts = torch.randint(5, (200, 6), generator=seeded())
    free = torch.rand(200, 6, generator=seeded(1)) < 0.7
    denoiser = Denoiser(built)
    after = LeastLikely(2, 4)(
        denoiser,
        texts,
        level(0.5).expand(200, 1),
        free,
        truncation=KeepAll(),
        generator=seeded(2),
    )
    changed = after != texts
    assert changed.any()
    assert not (changed & (~free | (texts == 4))).any()
    assert ((after == 4) == (texts == 4)).all()
    assert changed.sum(-1).max() == 2
    assert denoiser.calls == 1
    masks = torch.full((3, 6), 4)
    assert torch.equal(corrected(LeastLikely(1, 8), built, masks, 0.5), masks)


def neighbours(text: Tensor, num_tokens: int) -> Tensor:
    """All texts that differ in one token, and the text itself."""
    found = [text]
    for place in range(len(text)):
        for token in range(num_tokens):
            found.append(text.clone())
            found[-1][place] = token
    return torch.stack(found)


def mended(built, how: SelfCorrection, texts: Tensor, free: Tensor | None = None) -> Tensor:
    free = torch.ones_like(texts, dtype=torch.bool) if free is None else free
    return how(Denoiser(built), texts, free, seeded())


def test_a_round_makes_the_best_change_of_one_token_until_there_is_none() -> None:
    law = random_law(3, 3, seed=3)
    built = exact_model(law, Uniform)
    likely = noisy(law, built.process, 1 - MENDING_TIME).log()
    texts = all_sequences(3, 3)
    one = mended(built, SelfCorrection(1, 1, 0.0), texts)
    for text, found in zip(texts, one, strict=True):
        near = neighbours(text, 3)
        assert likely[tuple(found)] == max(likely[tuple(near.T)])
    last = mended(built, SelfCorrection(50, 1, 0.0), texts)
    assert torch.equal(mended(built, SelfCorrection(1, 1, 0.0), last), last)
    assert 1 <= len(last.unique(dim=0)) < 27


def test_texts_that_no_longer_change_are_not_read_again() -> None:
    built = exact_model(random_law(3, 3, seed=3), Uniform)
    read: list[int] = []
    watched = built.watched(lambda inputs, alpha: read.append(len(inputs)))
    mended(watched, SelfCorrection(50, 1, 0.0), all_sequences(3, 3))
    assert read[0] == 27
    assert read == sorted(read, reverse=True)
    assert len(read) < 10


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_a_token_that_is_drawn_replaces_only_a_less_likely_one(temperature: float) -> None:
    law = random_law(3, 3, seed=3)
    built = exact_model(law, Uniform)
    likely = noisy(law, built.process, 1 - MENDING_TIME).log()
    texts = all_sequences(3, 3)[None].expand(20, 27, 3).reshape(-1, 3)
    for _ in range(3):
        after = mended(built, SelfCorrection(1, 1, temperature), texts)
        assert ((after != texts).sum(-1) <= 1).all()
        gained = likely[tuple(after.T)] - likely[tuple(texts.T)]
        assert (gained[(after != texts).any(-1)] > 0).all()
        texts = after
    assert len(after.unique(dim=0)) > 1


def test_a_sampler_mends_its_text_around_a_prompt() -> None:
    law = two_token_law()
    built = exact_model(law, Uniform)
    prompt = Prompt(
        torch.tensor([[2, 0]]).expand(500, 2), torch.tensor([[True, False]]).expand(500, 2)
    )
    drawn = Ancestral(steps=2, self_corrections=9)(built, (500, 2), seeded(), prompt)
    assert (drawn.tokens[:, 0] == 2).all()
    assert (drawn.tokens[:, 1] == law.probs[2].argmax()).all()
    assert drawn.nfe == 2 + 1 + 2, "the second round finds nothing to change"


def test_samplers_hand_their_options_on() -> None:
    built = exact_model(two_token_law(), Uniform)

    def likelihood(**options: object) -> float:
        sampler = Ancestral(steps=2, **options)
        return float(two_token_law().log_prob(sampler(built, (5000, 2), seeded(3)).tokens).mean())

    plain = likelihood()
    chance = likelihood(corrections=1)
    assert likelihood(corrections=1, corrected="least-likely", considered=1) > plain
    assert likelihood(corrections=1, corrected="least-likely") > chance
    assert likelihood(self_corrections=1) > chance


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"considered": 0}, "considered 0"),
        ({"self_corrections": -1}, "self_corrections is -1"),
        ({"self_temperature": -1.0}, "self_temperature -1"),
        ({"self_temperature": math.inf}, "self_temperature inf"),
    ],
)
def test_numbers_out_of_range_are_refused(options: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Ancestral(**options)


def test_a_self_correction_of_masks_alone_is_refused_before_anything_is_trained() -> None:
    plugins = find_plugins({"PLATFORM_PLUGINS": "platform_core.testing.stubs"})
    words = ["--process=absorbing", "--backbone=small", "--sampler.self_corrections=3"]
    with pytest.raises(UsageError, match="sampler ancestral: self_corrections need a network"):
        compose(words, plugins, prog="test", environ={})
    compose(["--process=uniform", *words[1:]], plugins, prog="test", environ={})
    built = exact_model(two_token_law(), Absorbing)
    with pytest.raises(ValueError, match="corrected least-likely"):
        Ancestral(self_corrections=1)(built, (2, 2), seeded())
