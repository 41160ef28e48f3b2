"""Corrections: some tokens of a text are drawn again given the others, to mend mistakes.

    during a walk, at signal level alpha     `Random`, `LeastLikely`
    after it, on finished text               `SelfCorrection`

All of them ask the network for p(x_t^l = y | the others), the softmax of its score at position l.
Samplers on a grid (`platform_core.sampler.GridSampler`) have them as options.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Literal, final

import torch
from torch import Tensor

from platform_core import categorical
from platform_core.categorical import Truncation
from platform_core.model import Denoiser
from platform_core.process import Absorbing, Process
from platform_core.rows import Places
from platform_core.types import Logits, Noise, Selected, Tokens

Corrected = Literal["random", "least-likely"]
"""Which tokens a correction draws again; see `correction`."""

MENDING_TIME = 0.01
"""Time of the schedule whose noise level a network is told in a self-correction, as published."""


class Correction(ABC):
    """A way to draw some tokens of each text again at one signal level, in at most one call."""

    @abstractmethod
    def __call__(
        self,
        denoiser: Denoiser,
        x_t: Tokens,
        alpha: Noise,
        free: Selected,
        *,
        truncation: Truncation,
        generator: torch.Generator,
    ) -> Tokens:
        """The texts with some tokens drawn again.

        Args:
            denoiser: the model.
            x_t: texts, `[batch, length]`.
            alpha: their signal level, `[batch, 1]`.
            free: positions that may change.
            truncation: truncation of the law of each draw.
            generator: generator of every draw.
        """


@final
class Random(Correction):
    """Draws tokens at random positions again, masks included; see `Denoiser.redraw`.

    With exact predictions and one token at a time, texts keep their law q_t: a Gibbs step.

    Args:
        redrawn: tokens of each text, or all that are free if there are fewer.
    """

    def __init__(self, redrawn: int) -> None:
        self.redrawn = redrawn

    def __call__(
        self,
        denoiser: Denoiser,
        x_t: Tokens,
        alpha: Noise,
        free: Selected,
        *,
        truncation: Truncation,
        generator: torch.Generator,
    ) -> Tokens:
        return denoiser.redraw(
            x_t,
            alpha,
            some(free, self.redrawn, generator),
            truncation=truncation,
            generator=generator,
        )


@final
class LeastLikely(Correction):
    """Looks at some tokens of each text, and draws those again that are least likely given the
    others: an informed corrector.

    Masks are neither looked at nor drawn, so that a correction moves a text neither forward nor
    back. Under absorbing noise the tokens that are looked at are hidden together, because a token
    that is seen says nothing about itself; so the fewer, the more exact. Under other noise the
    score of each is exact whatever the number.

    What stays invariant: if no choice is left (`considered` is at most `redrawn`) and one token is
    redrawn, this is a Gibbs step, and texts keep their law q_t. A choice that depends on the tokens
    breaks that: likely texts are left alone more often than unlikely ones, and gain probability. So
    the law of a walk is not that of the model, in any number of steps; that is its purpose where
    predictions are drawn many at once, or are wrong.

    Args:
        redrawn: tokens of each text that are drawn again.
        considered: tokens of each text that are looked at, at random positions.

    Source: Zhao et al. 2024, arXiv:2407.21243, which reads all conditionals at once with a hollow
    transformer and draws again by locally balanced rates; here any network is asked, and the least
    likely go.
    """

    def __init__(self, redrawn: int, considered: int) -> None:
        self.redrawn, self.considered = redrawn, considered

    def __call__(
        self,
        denoiser: Denoiser,
        x_t: Tokens,
        alpha: Noise,
        free: Selected,
        *,
        truncation: Truncation,
        generator: torch.Generator,
    ) -> Tokens:
        process, parameterization = denoiser.process, denoiser.parameterization
        size = process.vocab_size
        looked = some(free & (x_t < size) & _may_change(denoiser, x_t), self.considered, generator)
        places = denoiser.places(looked)
        if not len(places):
            return x_t
        hidden = x_t
        if isinstance(process, Absorbing):
            hidden = x_t.masked_fill(looked, process.mask_id)

        def read(logits: Logits, x: Tokens, level: Noise, present: Tensor) -> Tensor:
            row = logits.double(), x, level
            own = parameterization.log_score(*row, process)[..., :size].log_softmax(-1)
            sharp = parameterization.sharpened_score(*row, process=process, truncation=truncation)
            drawn = categorical.draw(sharp[..., :size].softmax(-1), generator)
            likely = own.gather(-1, present.long()[:, None]).squeeze(-1)
            # One tensor for both; float64 holds every token exactly.
            return torch.stack((drawn.double(), likely), dim=-1)

        found = denoiser.read(hidden, alpha, places, read, (alpha, x_t.double()))
        drawn, likely = _spread(places, found, x_t, beyond=math.inf)
        return torch.where(_first(likely, self.redrawn) & looked, drawn, x_t)


@final
class SelfCorrection:
    """Replaces tokens of finished texts by others that the network finds likelier.

    The network has to have learned that a token may be wrong. It has not under masks alone, which
    `require_doubt` refuses.

        gain[y] = log q(y) - log q(x^l) given the others, the score, for every token y

    Each round picks a token y at every position and replaces those of the largest gain, if it is
    above 0. It stops when a round changes no text. With exact predictions of clean text, one token
    at a time, the log-probability of the text rises by the gain in each round. So this searches for
    likely texts and does not draw from the model's law: samples become more likely and less varied.

    Args:
        rounds: rounds at most; each is one network call.
        redrawn: tokens of each text that a round replaces at most.
        temperature: 0 picks the token of the largest gain; above 0, y is drawn from the law of the
            position, raised to the power 1 / temperature.

    Raises:
        ValueError: rounds or temperature is below 0.

    Source: GIDD, arXiv:2503.04482, whose code draws a token at every position at a temperature and
    replaces that which was drawn with most probability, whether it is likelier than the present one
    or not.
    """

    def __init__(self, rounds: int, redrawn: int, temperature: float) -> None:
        if rounds < 0 or not 0 <= temperature < math.inf:
            raise ValueError(
                f"self_corrections is {rounds} and self_temperature {temperature:g}; both must be "
                "at least 0"
            )
        self.rounds, self.redrawn, self.temperature = rounds, redrawn, temperature

    def __call__(
        self, denoiser: Denoiser, x: Tokens, free: Selected, generator: torch.Generator
    ) -> Tokens:
        """The texts `[batch, length]` after all rounds; positions that are not `free` stay."""
        time = torch.full((1, 1), MENDING_TIME, dtype=torch.float64, device=x.device)
        alpha = denoiser.schedule.alpha(time)
        going = torch.arange(len(x), device=x.device)
        for _ in range(self.rounds):
            before = x[going]
            after = self._round(denoiser, before, alpha, free[going], generator)
            x = x.index_copy(0, going, after)
            going = going[(after != before).any(-1)]
            if not len(going):
                break
        return x

    def _round(
        self,
        denoiser: Denoiser,
        x: Tokens,
        alpha: Noise,
        free: Selected,
        generator: torch.Generator,
    ) -> Tokens:
        process, parameterization = denoiser.process, denoiser.parameterization

        def read(logits: Logits, x: Tokens, level: Noise) -> Tensor:
            score = parameterization.log_score(logits.double(), x, level, process)
            gains = score[..., : process.vocab_size]
            picked = self._pick(gains, generator)
            return torch.stack((picked.double(), gains.gather(-1, picked[:, None])[:, 0]), dim=-1)

        places = denoiser.places(free & _may_change(denoiser, x))
        if not len(places):
            return x
        found = denoiser.read(x, alpha.expand(len(x), 1), places, read, (alpha,))
        picked, gain = _spread(places, found, x, beyond=-math.inf)
        return torch.where(_first(-gain, self.redrawn) & (gain > 0), picked, x)

    def _pick(self, gains: Tensor, generator: torch.Generator) -> Tokens:
        if self.temperature == 0:
            return gains.argmax(-1)
        return categorical.draw((gains / self.temperature).softmax(-1), generator)


def require_doubt(process: Process) -> None:
    """Refuse a process under which a network never sees a wrong token.

    Raises:
        ValueError: all noise is masks.
    """
    if isinstance(process, Absorbing):
        raise ValueError(
            "self_corrections need a network that has seen wrong tokens, and under masks alone it "
            "has not; take corrections with corrected least-likely, or a model of process gidd, "
            "duo or uniform"
        )


def some(selected: Selected, number: int, generator: torch.Generator) -> Selected:
    """So many of the selected positions of each text at random, or all if there are fewer."""
    chance = torch.rand(
        selected.shape, generator=generator, dtype=torch.float64, device=selected.device
    ).masked_fill(~selected, -1)
    last = chance.topk(min(number, selected.shape[1]), dim=-1).values[:, -1:]
    return (chance >= last) & selected


def _may_change(denoiser: Denoiser, x_t: Tokens) -> Selected:
    """Positions of whose token the network says how likely it is, if it is hidden where needed."""
    if isinstance(denoiser.process, Absorbing):
        return torch.ones_like(x_t, dtype=torch.bool)
    return denoiser.process.changeable(x_t)


def _spread(places: Places, found: Tensor, x_t: Tokens, *, beyond: float) -> tuple[Tokens, Tensor]:
    """Tokens and numbers of rows, `[rows, 2]`, at their places; elsewhere x_t and `beyond`."""
    tokens, numbers = found.unbind(-1)
    elsewhere = torch.full(x_t.shape, beyond, dtype=torch.float64, device=x_t.device)
    return places.spread(tokens.long(), x_t), places.spread(numbers, elsewhere)


def _first(numbers: Tensor, number: int) -> Selected:
    """The `number` positions of each text with the smallest numbers, ties by position."""
    order = numbers.argsort(dim=-1, stable=True)
    return order.argsort(dim=-1) < number


def correction(corrected: Corrected, redrawn: int, considered: int) -> Correction:
    """The correction that a sampler's options ask for.

    Args:
        corrected: random: tokens at random positions, masks included. least-likely: of
            `considered` tokens at random positions, the least likely given the others.
        redrawn: tokens of each text that are drawn again.
        considered: tokens of each text that `least-likely` chooses among.

    Raises:
        ValueError: a number is below 1.
    """
    if redrawn < 1 or considered < 1:
        raise ValueError(f"redrawn is {redrawn} and considered {considered}; they are at least 1")
    return _CORRECTIONS[corrected](redrawn, considered)


_CORRECTIONS: Mapping[Corrected, Callable[[int, int], Correction]] = {
    "random": lambda redrawn, considered: Random(redrawn),
    "least-likely": LeastLikely,
}
