"""Rules of unmasking: which masks of a text are replaced by the next call of the network.

    score of a mask     confidence max_j p[j], margin p_(1) - p_(2), -entropy, left to right, random
    pace of a call      so many, a budget of calls, a threshold of confidence, a bound on entropy

A rule ranks the masks of each text by their score, the highest first and ties by position, and its
pace says how many of them go. A rule without random numbers depends on the text alone, so that each
text has one path from masks to tokens and an exact likelihood (`platform_orders.objective`). Its
samplers (`platform_orders.sampler`) use the same objects.
"""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar, Literal, NamedTuple, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from platform_core.types import LogProbs, Selected, Tokens

Rows = Float[Tensor, " rows"]
Values = Float[Tensor, "batch length 2"]
Counts = Int[Tensor, "batch 1"]

ScoreName = Literal["confidence", "margin", "entropy", "left-to-right", "random"]


class Masks(NamedTuple):
    """Masks of some texts, one in each row."""

    law: LogProbs
    """Log-probabilities of the clean token, `[rows, states]`."""
    token: Tokens
    """A token that was picked by the law; only `Drawn` looks at it."""
    place: Rows
    """Position in the text."""
    left: Rows
    """Share of the text's first masks that are left."""


class Score(ABC):
    """A number of a mask; the masks with the highest numbers are replaced first.

    `random` says whether the number is drawn, so that a text has more than one path.
    """

    random: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, masks: Masks, generator: torch.Generator | None) -> Rows:
        """The number of each mask, in float64; `generator` is that of numbers that are drawn."""


@final
class Confidence(Score):
    """Log-probability of the most likely token."""

    def __call__(self, masks: Masks, generator: torch.Generator | None) -> Rows:
        return masks.law.amax(-1).double()


@final
class Margin(Score):
    """How much more likely the most likely token is than the second.

    Source: arXiv:2502.06768.
    """

    def __call__(self, masks: Masks, generator: torch.Generator | None) -> Rows:
        first, second = masks.law.topk(2, dim=-1).values.double().exp().unbind(-1)
        return first - second


@final
class Certainty(Score):
    """The negative entropy of the law, in nats."""

    def __call__(self, masks: Masks, generator: torch.Generator | None) -> Rows:
        return -entropy(masks.law)


@final
class LeftToRight(Score):
    """The first mask of the text first."""

    def __call__(self, masks: Masks, generator: torch.Generator | None) -> Rows:
        return -masks.place.double()


@final
class Random(Score):
    """Every order equally likely."""

    random = True

    def __call__(self, masks: Masks, generator: torch.Generator | None) -> Rows:
        return _uniform(masks.place, generator)


@final
class Drawn(Score):
    """Log-probability of the token that was drawn, plus Gumbel noise.

    MaskGIT draws a token at every mask first, and keeps the likeliest of these tokens. The noise is
    `noise` times the share of masks that are left.

    Source: MaskGIT, arXiv:2202.04200, section 3.2.
    """

    random = True

    def __init__(self, noise: float) -> None:
        self.noise = noise

    def __call__(self, masks: Masks, generator: torch.Generator | None) -> Rows:
        chance = masks.law.gather(-1, masks.token[:, None]).squeeze(-1).double()
        uniform = _uniform(masks.place, generator).clamp_min(torch.finfo(torch.float64).tiny)
        return chance - self.noise * masks.left * (-uniform.log()).log()


def _uniform(like: Rows, generator: torch.Generator | None) -> Rows:
    return torch.rand(like.shape, generator=generator, dtype=torch.float64, device=like.device)


def entropy(law: LogProbs) -> Rows:
    """Entropy of each row, in nats and float64; states of probability 0 add nothing."""
    terms: Tensor = torch.special.entr(law.double().exp())
    return terms.sum(-1)


class Ranked(NamedTuple):
    """The masks of some texts in the order of their scores, and what a pace may know of them."""

    rank: Tokens
    """Place of each position in the order of its text, from 0, `[batch, length]`."""
    order: Tokens
    """The positions in this order, `[batch, length]`; those that are no masks come last."""
    known: Tensor
    """What the pace asked of the law of each position, `[batch, length]`."""
    left: Counts
    """Masks of each text."""
    first: Counts
    """Masks of each text before the first call."""
    call: int
    """Number of calls before this one."""


class Pace(ABC):
    """How many of the ranked masks go in one call."""

    def ask(self, law: LogProbs) -> Rows:
        """What `choose` needs to know of each row's law, in float64; by default nothing."""
        return torch.zeros(len(law), dtype=torch.float64, device=law.device)

    @abstractmethod
    def choose(self, ranked: Ranked) -> Selected:
        """The positions that go, at least one in each text with masks; others than masks are
        left out by the rule.
        """


@final
class Number(Pace):
    """So many in each call."""

    def __init__(self, number: float) -> None:
        if number < 1 or number != int(number):
            raise ValueError(f"at_once is {number:g}; it must be a whole number of at least 1")
        self.number = int(number)

    def choose(self, ranked: Ranked) -> Selected:
        return ranked.rank < self.number


class Budget(Pace):
    """A number of calls, after the i-th of which `share(i / n)` of the masks are left.

    Every call replaces at least one mask.

    Source: MaskGIT, arXiv:2202.04200, section 3.3.
    """

    def __init__(self, calls: float) -> None:
        if calls < 1 or calls != int(calls):
            raise ValueError(
                f"at_once has a budget of {calls:g} calls; it must be a whole number of at least 1"
            )
        self.calls = int(calls)

    @abstractmethod
    def share(self, done: float) -> float:
        """Share of the masks that are left after a share of the calls; 1 at 0, and 0 at 1."""

    def choose(self, ranked: Ranked) -> Selected:
        share = self.share(min(1.0, (ranked.call + 1) / self.calls))
        target = (ranked.first * share).round().long()
        return ranked.rank < (ranked.left - target).clamp_min(1)


@final
class Cosine(Budget):
    """Few at first, and more the more there is to go by."""

    def share(self, done: float) -> float:
        return math.cos(math.pi / 2 * done) if done < 1 else 0.0


@final
class Linear(Budget):
    """As many in every call."""

    def share(self, done: float) -> float:
        return 1 - done


@final
class Threshold(Pace):
    """All masks whose most likely token has at least this probability, and at least one mask.

    Source: Fast-dLLM, arXiv:2505.22618.
    """

    def __init__(self, probability: float) -> None:
        if not 0 < probability <= 1:
            raise ValueError(
                f"the threshold of at_once is {probability:g}; it must be above 0 and at most 1"
            )
        self.probability = probability

    def ask(self, law: LogProbs) -> Rows:
        return law.amax(-1).double().exp()

    def choose(self, ranked: Ranked) -> Selected:
        return (ranked.known >= self.probability) | (ranked.rank == 0)


@final
class EntropyBound(Pace):
    """The longest beginning of the order whose entropies, without the largest, sum to at most
    `nats`; 0 is one mask at a time.

    The sum bounds how far tokens that are drawn at once, as if independent, can be from their joint
    law, in nats.

    Source: EB-sampler, arXiv:2505.24857.
    """

    def __init__(self, nats: float) -> None:
        if not 0 <= nats < math.inf:
            raise ValueError(f"the entropy of at_once is {nats:g} nats; it must be at least 0")
        self.nats = nats

    def ask(self, law: LogProbs) -> Rows:
        return entropy(law)

    def choose(self, ranked: Ranked) -> Selected:
        ordered = ranked.known.gather(-1, ranked.order)
        excess = ordered.cumsum(-1) - ordered.cummax(-1).values
        return ranked.rank < (excess <= self.nats).sum(-1, keepdim=True).clamp_min(1)


@final
class Rule:
    """Which masks the next call replaces: those with the highest scores, as many as the pace says.

    Args:
        score: ranks the masks of a text.
        pace: says how many go.
    """

    def __init__(self, score: Score, pace: Pace) -> None:
        self.score, self.pace = score, pace

    def read(self, masks: Masks, generator: torch.Generator | None = None) -> Tensor:
        """What `choose` needs to know of each mask, `[rows, 2]`."""
        return torch.stack((self.score(masks, generator), self.pace.ask(masks.law)), dim=-1)

    def choose(self, values: Values, masked: Selected, first: Counts, call: int) -> Selected:
        """The masks of each text that go.

        Args:
            values: `read` at every mask; elsewhere of no meaning.
            masked: the masks.
            first: masks of each text before the first call.
            call: number of calls before this one.
        """
        score, known = values.unbind(-1)
        score = score.masked_fill(~masked, -torch.inf)
        order = score.argsort(dim=-1, descending=True, stable=True)
        left = masked.sum(-1, keepdim=True)
        ranked = Ranked(order.argsort(dim=-1), order, known, left, first, call)
        return self.pace.choose(ranked) & masked


def rule_of(score: ScoreName = "confidence", at_once: str = "1") -> Rule:
    """The rule that options ask for.

    Args:
        score: which masks are replaced first. confidence: those whose most likely token is
            likeliest. margin: those with the largest difference between the two likeliest tokens.
            entropy: those whose law has the lowest entropy. left-to-right, random: whatever the
            network says.
        at_once: how many masks a call replaces. NUMBER: so many. cosine-CALLS, linear-CALLS: so
            many that none is left after so many calls, few of them first under cosine.
            threshold-P: all whose most likely token has at least probability P, and at least one.
            entropy-NATS: as many as have together at most so much entropy, not counting the
            largest.

    Raises:
        ValueError: at_once is none of these.
    """
    return Rule(_SCORES[score](), pace_of(at_once))


def pace_of(at_once: str) -> Pace:
    """The pace with this name, for example 2, cosine-32 or threshold-0.9.

    Raises:
        ValueError: the name is unknown, or its number is out of range.
    """
    found = _PACE.fullmatch(str(at_once))
    if found is None:
        named = ", ".join(f"{name}-NUMBER" for name in _PACES if name)
        raise ValueError(
            f"at_once {at_once!r} is unknown; give a number, or one of {named}, for example "
            "cosine-32 or threshold-0.9"
        )
    return _PACES[found["name"] or ""](float(found["number"]))


_SCORES: Mapping[ScoreName, Callable[[], Score]] = {
    "confidence": Confidence,
    "margin": Margin,
    "entropy": Certainty,
    "left-to-right": LeftToRight,
    "random": Random,
}

_PACES: Mapping[str, Callable[[float], Pace]] = {
    "": Number,
    "cosine": Cosine,
    "linear": Linear,
    "threshold": Threshold,
    "entropy": EntropyBound,
}

_PACE = re.compile(rf"((?P<name>{'|'.join(filter(None, _PACES))})-)?(?P<number>\d*\.?\d+(e-?\d+)?)")
