"""Corrections: some tokens of a noisy text are drawn again given the others, to mend mistakes.

    x_t^l ~ p(x_t^l = y | the others), the softmax of the score at position l

Samplers on a grid (`platform_core.sampler.GridSampler`) have them as options. `Random` chooses the
positions by chance, `LeastLikely` by what the network says of their tokens.
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
from platform_core.process import Masking
from platform_core.rows import Places
from platform_core.types import Logits, Noise, Selected, Tokens

Corrected = Literal["random", "least-likely"]
"""Which tokens a correction draws again; see `correction`."""


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
        if isinstance(process, Masking):
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


def some(selected: Selected, number: int, generator: torch.Generator) -> Selected:
    """So many of the selected positions of each text at random, or all if there are fewer."""
    chance = torch.rand(
        selected.shape, generator=generator, dtype=torch.float64, device=selected.device
    ).masked_fill(~selected, -1)
    last = chance.topk(min(number, selected.shape[1]), dim=-1).values[:, -1:]
    return (chance >= last) & selected


def _may_change(denoiser: Denoiser, x_t: Tokens) -> Selected:
    """Positions of whose token the network says how likely it is, if it is hidden where needed."""
    if isinstance(denoiser.process, Masking):
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
