"""One call of the network for masked texts: what a rule asks of every mask, and which masks go."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from platform_core.categorical import CleanOnly, KeepAll
from platform_core.draws import END_MARGIN
from platform_core.model import Denoiser
from platform_core.parameterization import PredictsClean
from platform_core.types import Conditions, Logits, LogProbs, Noise, Selected, Tokens
from platform_orders.rules import Counts, Masks, Rule

Pick = Callable[[LogProbs, Tokens], Tokens]
"""(laws of some masks, their tokens of `Texts.known`) -> one token for each."""


class Texts(NamedTuple):
    """Texts with masks, each with at least one."""

    x_t: Tokens
    """`[batch, length]`."""
    masked: Selected
    """The masks that may be replaced."""
    first: Counts
    """Masks of each text before the first call."""
    known: Tokens
    """Tokens that `Pick` is told."""
    conditions: Conditions | None = None

    def among(self, chosen: Selected) -> "Texts":
        """Some of the texts.

        Args:
            chosen: which, `[batch]`.
        """
        told = self.conditions
        if told is not None:
            told = {name: it if len(it) == 1 else it[chosen] for name, it in told.items()}
        x_t, masked, first, known = (it[chosen] for it in self[:4])
        return Texts(x_t, masked, first, known, told)


class Answer(NamedTuple):
    """What one call says of texts."""

    chosen: Selected
    """The masks that the rule replaces, `[batch, length]`."""
    tokens: Tokens
    """The token that was picked at each mask; 0 elsewhere."""
    log_probs: Tensor
    """Its log-probability, in float64; 0 elsewhere."""


def call(
    denoiser: Denoiser,
    rule: Rule,
    texts: Texts,
    pick: Pick,
    *,
    number: int,
    generator: torch.Generator | None = None,
) -> Answer:
    """Ask the network about all masks of some texts at once, and let the rule choose among them.

    The network is told the noise level at which as large a share of tokens is masked. The rule
    looks at the network's own laws, whatever `pick` does with them.

    Args:
        number: number of calls before this one.
        generator: generator of scores that are drawn.
    """
    parameterization, process = denoiser.parameterization, denoiser.process
    assert isinstance(parameterization, PredictsClean), "see requires"
    clean = CleanOnly(process.vocab_size, KeepAll())

    def read(
        logits: Logits, x_t: Tokens, known: Tensor, place: Tensor, left: Tensor, alpha: Tensor
    ) -> Tensor:
        law = clean(parameterization.log_x0(logits, x_t, alpha, process))
        tokens = pick(law, known.long())
        chance = law.gather(-1, tokens[:, None])
        # One tensor for all; float64 holds every token exactly.
        asked = rule.read(Masks(law, tokens, place, left), generator)
        return torch.cat((asked, tokens[:, None].double(), chance.double()), dim=-1)

    x_t, masked = texts.x_t, texts.masked
    places = torch.arange(x_t.shape[1], dtype=torch.float64, device=x_t.device)[None]
    left = masked.sum(-1, keepdim=True) / texts.first.double()
    alpha = level(x_t, masked)
    columns = (texts.known.double(), places, left, alpha)
    rows = denoiser.read(x_t, alpha, masked, read, columns, texts.conditions)
    found = rows.new_zeros(*x_t.shape, rows.shape[-1])
    found[masked] = rows
    chosen = rule.choose(found[..., :2], masked, texts.first, number)
    return Answer(chosen, found[..., 2].long(), found[..., 3])


def level(x_t: Tokens, masked: Selected) -> Noise:
    """The signal level of texts: their share of tokens that are no masks, `[batch, 1]`."""
    share = masked.sum(-1, keepdim=True).double() / x_t.shape[1]
    return (1 - share).clamp_max(1 - END_MARGIN)
