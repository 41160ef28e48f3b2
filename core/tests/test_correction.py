"""Corrections by enumeration: which tokens they choose, what they draw, what stays invariant."""

import pytest
import torch
from torch import Tensor

from platform_core.categorical import KeepAll
from platform_core.correction import Correction, LeastLikely, Random
from platform_core.model import Denoiser
from platform_core.process import Absorbing, Diffusion, Interpolating, Uniform
from platform_core.sampler import Ancestral
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


def test_samplers_hand_their_options_on() -> None:
    built = exact_model(two_token_law(), Uniform)

    def likelihood(**options: object) -> float:
        sampler = Ancestral(steps=2, **options)
        return float(two_token_law().log_prob(sampler(built, (5000, 2), seeded(3)).tokens).mean())

    plain = likelihood()
    chance = likelihood(corrections=1)
    assert likelihood(corrections=1, corrected="least-likely", considered=1) > plain
    assert likelihood(corrections=1, corrected="least-likely") > chance


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="considered 0"):
        Ancestral(considered=0)
