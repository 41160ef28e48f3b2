"""Orders of unmasking: the path of every text, its exact likelihood, and samples that follow it."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from platform_core.draws import Draws
from platform_core.model import Denoiser, Model
from platform_core.objective import Nelbo
from platform_core.parameterization import Mean
from platform_core.process import Absorbing
from platform_core.sampler import Prompt
from platform_core.schedule import LogLinear
from platform_core.testing.toy import (
    ExactDenoiser,
    Mistaken,
    TinyNetwork,
    all_sequences,
    chi_square,
    index_of,
    integrated_bound,
    random_law,
    seeded,
)
from platform_core.types import Batch
from platform_orders.objective import OrderedLikelihood, ordered_nats
from platform_orders.rules import (
    Budget,
    Number,
    Rule,
    Score,
    pace_of,
    rule_of,
)
from platform_orders.sampler import MaskGit, Ordered

TOKENS, LENGTH = 3, 4
SCORES = ["confidence", "margin", "entropy", "left-to-right"]
PACES = ["1", "2", "3", "cosine-2", "cosine-3", "linear-2", "threshold-0.5", "threshold-0.7"]
PACES += ["entropy-0", "entropy-0.5", "entropy-2"]

scores = pytest.mark.parametrize("score", SCORES)
paces = pytest.mark.parametrize("at_once", PACES)


def model() -> Model:
    """A network that is wrong in its own way at every position, so that orders differ."""
    process = Absorbing(TOKENS)
    exact = ExactDenoiser(random_law(TOKENS, LENGTH, seed=4), process)
    return Model(
        process, LogLinear(), Mean(), Mistaken(exact, (LENGTH, process.num_states), scale=1.0)
    )


def everything(x0: Tensor) -> Batch:
    return Batch(x0, torch.ones_like(x0, dtype=torch.bool))


def laws(built: Model, text: tuple[int, ...]) -> Tensor:
    """The law of the clean token at every position, `[length, tokens]`."""
    x_t = torch.tensor([text])
    logits = built.backbone.encode(x_t, None)[0]
    return logits[:, :TOKENS].double().softmax(-1)


RANKS: dict[str, Callable[[Tensor, int], float]] = {
    "confidence": lambda p, _: float(p.max()),
    "margin": lambda p, _: float(p.sort().values[-1] - p.sort().values[-2]),
    "entropy": lambda p, _: float((p * p.log()).sum()),
    "left-to-right": lambda _, place: -place,
}


def gone(score: str, at_once: str, law: Tensor, masks: list[int], call: int) -> list[int]:
    """The masks that go, written out for one text."""
    ranked = sorted(masks, key=lambda place: -RANKS[score](law[place], place))
    entropies = [-float((law[place] * law[place].log()).sum()) for place in ranked]
    name, _, number = at_once.rpartition("-")
    if name == "threshold":
        sure = [place for place in masks if float(law[place].max()) >= float(number)]
        return sorted({*sure, ranked[0]})
    if name == "entropy":
        fits = [
            sum(entropies[:count]) - max(entropies[:count]) <= float(number)
            for count in range(1, len(ranked) + 1)
        ]
        return ranked[: fits.index(False) if False in fits else len(fits)]
    if name:
        done = min(1.0, (call + 1) / int(number))
        left = math.cos(math.pi / 2 * done) if name == "cosine" else 1 - done
        return ranked[: max(1, len(masks) - round(LENGTH * left))]
    return ranked[: int(number)]


def probability(built: Model, score: str, at_once: str, text: tuple[int, ...]) -> float:
    """The chance that a sampler writes a text, step by step."""
    so_far, masks, chance = [TOKENS] * LENGTH, list(range(LENGTH)), 1.0
    for call in range(LENGTH):
        if not masks:
            break
        law = laws(built, tuple(so_far))
        going = gone(score, at_once, law, masks, call)
        for place in going:
            chance *= float(law[place, text[place]])
            so_far[place] = text[place]
        masks = [place for place in masks if place not in going]
    return chance


@scores
@paces
def test_the_likelihood_is_that_of_the_one_path(score: Any, at_once: str) -> None:
    built, texts = model(), all_sequences(TOKENS, LENGTH)
    nats = ordered_nats(Denoiser(built), rule_of(score, at_once), everything(texts)).sum(-1)
    assert float((-nats).exp().sum()) == pytest.approx(1, abs=1e-12)
    for index in (0, 17, 40, 80):
        written_out = probability(built, score, at_once, tuple(texts[index].tolist()))
        assert float((-nats[index]).exp()) == pytest.approx(written_out, rel=1e-10)


@scores
@pytest.mark.parametrize("at_once", ["1", "2", "cosine-3", "threshold-0.5", "entropy-0.5"])
def test_samples_follow_the_likelihood(score: Any, at_once: str) -> None:
    built, texts = model(), all_sequences(TOKENS, LENGTH)
    objective = OrderedLikelihood(built, score, at_once)
    law = (-objective.bound(everything(texts), draws()).per_token.double().sum(-1)).exp()
    drawn = Ordered(score, at_once)(built, (20_000, LENGTH), seeded(3)).tokens
    assert chi_square(index_of(drawn, TOKENS), law) > 0.01


def draws() -> Draws:
    return Draws.derive("orders", step=0, first=0, total=1)


class Given(Score):
    """A fixed order of positions."""

    def __init__(self, order: tuple[int, ...]) -> None:
        self.place = torch.tensor(order, dtype=torch.float64)

    def __call__(self, masks: Any, generator: Any) -> Tensor:
        return -self.place[masks.place.long()]


def test_the_mean_over_all_orders_is_the_masked_bound() -> None:
    built, texts = model(), all_sequences(TOKENS, LENGTH)
    orders = list(itertools.permutations(range(LENGTH)))
    nats = [
        ordered_nats(Denoiser(built), Rule(Given(order), Number(1)), everything(texts)).sum(-1)
        for order in orders
    ]
    bound = integrated_bound(Nelbo(built), texts)
    torch.testing.assert_close(torch.stack(nats).mean(0), bound, rtol=0, atol=1e-6)


def test_with_exact_predictions_every_order_gives_the_data() -> None:
    law, process = random_law(TOKENS, LENGTH, seed=4), Absorbing(TOKENS)
    built = Model(process, LogLinear(), Mean(), ExactDenoiser(law, process))
    texts = all_sequences(TOKENS, LENGTH)
    for score in SCORES:
        nats = ordered_nats(Denoiser(built), rule_of(score), everything(texts)).sum(-1)  # type: ignore[arg-type]
        torch.testing.assert_close(nats, -law.log_prob(texts), rtol=0, atol=1e-10)


def test_a_random_order_one_at_a_time_is_first_hitting() -> None:
    """The law of random orders is the mean over all orders of the probability, by enumeration."""
    built, texts = model(), all_sequences(TOKENS, LENGTH)
    paths = [
        (-ordered_nats(Denoiser(built), Rule(Given(order), Number(1)), everything(texts)).sum(-1))
        for order in itertools.permutations(range(LENGTH))
    ]
    law = torch.stack(paths).exp().mean(0)
    drawn = Ordered("random")(built, (20_000, LENGTH), seeded(8)).tokens
    assert chi_square(index_of(drawn, TOKENS), law) > 0.01


@pytest.mark.parametrize("kind", ["cosine", "linear"])
@pytest.mark.parametrize("calls", [1, 3, 8, 16])
def test_a_budget_ends_in_as_many_calls_as_it_has(kind: str, calls: int) -> None:
    """After each call as many masks are left as its share of them, rounded, and at least one less
    than before.
    """
    torch.manual_seed(0)
    length, process = 16, Absorbing(TOKENS)
    built = Model(process, LogLinear(), Mean(), TinyNetwork(process.num_states))
    seen: list[int] = []
    watched = built.watched(lambda x_t, _: seen.append(int((x_t == TOKENS).sum())))
    drawn = Ordered("confidence", f"{kind}-{calls}")(watched, (1, length), seeded())
    pace = pace_of(f"{kind}-{calls}")
    assert isinstance(pace, Budget)
    assert drawn.nfe == len(seen) == calls
    planned = [length]
    for done in range(1, calls):
        planned.append(min(planned[-1] - 1, round(length * pace.share(done / calls))))
    assert seen == planned


def test_texts_that_are_ready_are_not_read_again() -> None:
    built, shape = model(), (64, LENGTH)
    read = []
    watched = built.watched(lambda x_t, _: read.append(len(x_t)))
    drawn = Ordered("confidence", "entropy-0.7")(watched, shape, seeded(3))
    assert drawn.each is not None
    assert drawn.nfe == len(read) == int(drawn.each.max())
    assert sum(read) == int(drawn.each.sum()) < drawn.nfe * len(drawn.each)
    assert read == sorted(read, reverse=True)


def maskgit_law(built: Model) -> Tensor:
    """Of two masks: both drawn, the likelier kept, the other drawn again."""
    chances = torch.zeros(TOKENS, TOKENS, dtype=torch.float64)
    law = laws(built, (TOKENS, TOKENS))
    for one, other in itertools.product(range(TOKENS), repeat=2):
        both = float(law[0, one] * law[1, other])
        if law[0, one] >= law[1, other]:
            chances[one] += both * laws(built, (one, TOKENS))[1]
        else:
            chances[:, other] += both * laws(built, (TOKENS, other))[0]
    return chances


def test_maskgit_keeps_the_likeliest_of_the_drawn_tokens() -> None:
    process = Absorbing(TOKENS)
    exact = ExactDenoiser(random_law(TOKENS, 2, seed=4), process)
    built = Model(process, LogLinear(), Mean(), Mistaken(exact, (2, process.num_states)))
    drawn = MaskGit("1", noise=0)(built, (20_000, 2), seeded(2)).tokens
    assert chi_square(index_of(drawn, TOKENS), maskgit_law(built).flatten()) > 0.01
    ranked_first = Ordered("confidence")(built, (20_000, 2), seeded(2)).tokens
    assert chi_square(index_of(ranked_first, TOKENS), maskgit_law(built).flatten()) < 1e-6


def test_noise_makes_maskgit_s_order_random() -> None:
    """Overwhelming noise ranks at random, as `ordered` does with that score."""
    built, texts = model(), all_sequences(TOKENS, LENGTH)
    noisy = MaskGit("1", noise=1e6)(built, (20_000, LENGTH), seeded(2)).tokens
    paths = [
        (-ordered_nats(Denoiser(built), Rule(Given(order), Number(1)), everything(texts)).sum(-1))
        for order in itertools.permutations(range(LENGTH))
    ]
    assert chi_square(index_of(noisy, TOKENS), torch.stack(paths).exp().mean(0)) > 0.01


def test_uncounted_tokens_are_given() -> None:
    """Their likelihood is left out, and the rest is that of texts around them."""
    built, texts = model(), all_sequences(TOKENS, LENGTH)
    counted = torch.tensor([True, False, True, True]).expand_as(texts)
    nats = ordered_nats(Denoiser(built), rule_of(), Batch(texts, counted))
    assert (nats[:, 1] == 0).all()
    sums = torch.zeros(TOKENS, dtype=torch.float64)
    sums.index_add_(0, texts[:, 1], (-nats.sum(-1)).exp())
    torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-12)


def test_a_prompt_is_read_at_the_level_of_what_is_left() -> None:
    process = Absorbing(TOKENS, time_conditioned=True)
    built = Model(process, LogLinear(), Mean(), TinyNetwork(process.num_states))
    levels = []
    watched = built.watched(lambda _, alpha: levels.append(float(alpha)))
    prompt = Prompt(torch.tensor([[1, 0, 0, 0]]), torch.tensor([[True, False, False, False]]))
    Ordered("left-to-right")(watched, (1, LENGTH), seeded(), prompt)
    assert levels == pytest.approx([0.25, 0.5, 0.75])


@pytest.mark.parametrize(
    ("at_once", "said"),
    [
        ("0", "whole number"),
        ("1.5", "whole number"),
        ("cosine-0", "budget"),
        ("linear-2.5", "budget"),
        ("threshold-0", "threshold"),
        ("threshold-1.1", "threshold"),
        ("cosin-3", "one of cosine-NUMBER"),
        ("entropy--1", "is unknown"),
        ("", "is unknown"),
    ],
)
def test_a_pace_that_cannot_be_is_refused(at_once: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Ordered(at_once=at_once)


def test_a_random_order_has_no_likelihood() -> None:
    with pytest.raises(ValueError, match="many paths"):
        OrderedLikelihood(model(), "random")


def test_negative_noise_is_refused() -> None:
    with pytest.raises(ValueError, match="noise is -1"):
        MaskGit(noise=-1)
