"""Self-correction by enumeration: what a round changes, where it ends, and what it costs."""

import math

import pytest
import torch
from torch import Tensor

from platform_core.composition.compose import compose
from platform_core.errors import IncompatibleError
from platform_core.model import Model
from platform_core.process import Uniform
from platform_core.registry.loading import find_plugins
from platform_core.sampler import Ancestral, Prompt, Sample, Sampler
from platform_core.testing.toy import (
    all_sequences,
    exact_model,
    marginals,
    random_law,
    seeded,
    two_token_law,
)
from platform_gidd.process import Gidd
from platform_gidd.sampler import TIME, SelfCorrection
from platform_gidd.schedule import Hybrid

LAW = random_law(3, 3, seed=3)
TEXTS = all_sequences(3, 3)


class Given(Sampler):
    """Texts that are given, at no cost."""

    def __init__(self, texts: Tensor) -> None:
        self.texts = texts

    def __call__(self, model, shape, generator, prompt=None) -> Sample:
        return Sample(self.texts, 0)


def noisy(built: Model) -> Tensor:
    """log q_t of whole texts at the level that the network is told."""
    time = torch.tensor([TIME], dtype=torch.float64)
    found, step = LAW.probs, marginals(built.process, built.schedule.alpha(time))[0]
    for _ in range(LAW.length):  # the first dimension is taken, and comes back as the last
        found = torch.tensordot(found, step, dims=([0], [0]))
    return found.log()


def corrected(built: Model, texts: Tensor, rounds: int, temperature: float = 0.0) -> Tensor:
    sampler = SelfCorrection(Given(texts), rounds, 1, temperature)
    return sampler(built, tuple(texts.shape), seeded()).tokens


def neighbours(text: Tensor) -> Tensor:
    """All texts of the vocabulary that differ in one token at most."""
    found = text.repeat(9, 1)
    found[torch.arange(9), torch.arange(9) // 3] = torch.arange(9) % 3
    return found


def models() -> list[Model]:
    hybrid = exact_model(LAW, lambda size: Gidd(size, 0.4), Hybrid(0.4))
    return [exact_model(LAW, Uniform), hybrid]


@pytest.mark.parametrize("built", models(), ids=["uniform", "gidd"])
def test_a_round_makes_the_best_change_of_one_token_until_there_is_none(built: Model) -> None:
    likely = noisy(built)
    for text, found in zip(TEXTS, corrected(built, TEXTS, 1), strict=True):
        assert likely[tuple(found)] == max(likely[tuple(neighbours(text).T)])
    last = corrected(built, TEXTS, 50)
    assert torch.equal(corrected(built, last, 1), last)
    assert 1 <= len(last.unique(dim=0)) < 27


def test_masks_that_a_sampler_has_left_are_replaced_too() -> None:
    built = models()[1]
    masked = all_sequences(4, 3)
    found = corrected(built, masked, 50)
    assert found.max() < 3
    assert torch.equal(corrected(built, found, 1), found)


def test_texts_that_no_longer_change_are_not_read_again() -> None:
    built, read = exact_model(LAW, Uniform), []
    watched = built.watched(lambda inputs, alpha: read.append(len(inputs)))
    drawn = SelfCorrection(Given(TEXTS), 50)(watched, (27, 3), seeded())
    assert read[0] == 27
    assert read == sorted(read, reverse=True)
    assert drawn.nfe == len(read) < 10
    assert drawn.each.sum() == sum(read)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_a_token_that_is_drawn_replaces_only_a_less_likely_one(temperature: float) -> None:
    built = exact_model(LAW, Uniform)
    likely, texts = noisy(built), TEXTS.repeat(20, 1)
    for _ in range(3):
        after = corrected(built, texts, 1, temperature)
        assert ((after != texts).sum(-1) <= 1).all()
        gained = likely[tuple(after.T)] - likely[tuple(texts.T)]
        assert (gained[(after != texts).any(-1)] > 0).all()
        texts = after
    assert len(after.unique(dim=0)) > 1


def test_several_tokens_are_replaced_in_one_round() -> None:
    built = exact_model(LAW, Uniform)
    found = SelfCorrection(Given(TEXTS), 1, replaced=2)(built, (27, 3), seeded()).tokens
    assert (found != TEXTS).sum(-1).max() == 2


def test_a_prompt_stays_and_calls_are_counted() -> None:
    law = two_token_law()
    tokens = torch.tensor([[2, 0]]).expand(500, 2)
    prompt = Prompt(tokens, torch.tensor([[True, False]]).expand(500, 2))
    sampler = SelfCorrection(Ancestral(steps=2))
    drawn = sampler(exact_model(law, Uniform), (500, 2), seeded(), prompt)
    assert (drawn.tokens[:, 0] == 2).all()
    assert (drawn.tokens[:, 1] == law.probs[2].argmax()).all()
    assert drawn.nfe == 2 + 1 + 2, "the second round finds nothing to change"
    assert set(drawn.each.tolist()) == {4, 5}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rounds": 0}, "rounds is 0"),
        ({"replaced": 0}, "replaced 0"),
        ({"temperature": -1.0}, "temperature is -1"),
        ({"temperature": math.inf}, "temperature is inf"),
    ],
)
def test_numbers_out_of_range_are_refused(options: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SelfCorrection(Ancestral(), **options)


def test_masks_alone_are_refused_because_no_token_is_ever_wrong_under_them() -> None:
    plugins = find_plugins({"PLATFORM_PLUGINS": "platform_core.testing.stubs"})
    words = ["--backbone=small", "--sampler=self-correction", "--sampler.inner.steps=3"]
    with pytest.raises(IncompatibleError, match="needs a replacing process"):
        compose(["--process=absorbing", *words], plugins, prog="test", environ={})
    for process in ("uniform", "gidd"):
        made, _ = compose([f"--process={process}", *words], plugins, prog="test", environ={})
        assert made.build(7).sampler.inner.steps == 3
