"""The exact likelihood of a text whose masks are replaced in the order of a rule.

    log p(x) = sum over calls, over the masks that go in that call, of log p(x^l | text so far)

A rule without random numbers depends on the text so far alone, so each text has one path from masks
to tokens, and the sum over it is the whole probability: no bound, no noise, no error but that of
the choice of texts. It costs the calls that a sampler takes for this text.
"""

from collections.abc import Mapping
from typing import ClassVar, final

import torch

from platform_core.draws import Draws
from platform_core.model import Denoiser, Model
from platform_core.objective import Loss, Objective, Protocol, ShortestNelbo
from platform_core.parameterization import PredictsClean
from platform_core.process import Absorbing
from platform_core.types import Batch, LogProbs, Tokens
from platform_orders.reading import Texts, call
from platform_orders.rules import Rule, ScoreName, rule_of


@final
class OrderedLikelihood(Objective):
    """Trains by the bound under masks, and reports the exact likelihood of an order of unmasking.

    Tokens that do not count, such as padding, are given to the network as they are.

    Args:
        score: which masks are replaced first. confidence: those whose most likely token is
            likeliest. margin: those where it leads the second by most. entropy: those whose law has
            the lowest entropy. left-to-right: whatever the network says.
        at_once: how many masks a call replaces. NUMBER: so many. cosine-CALLS, linear-CALLS: so
            many that none is left after so many calls. threshold-P: all whose most likely token has
            at least probability P, and at least one. entropy-NATS: as many as have together at most
            so much entropy, not counting the largest.
        t_min: training draws times from [t_min, 1].

    Raises:
        ValueError: the order is random, so that no text has a single path; or at_once is unknown.

    Source: DUEL, arXiv:2603.01367.
    """

    requires: ClassVar[Mapping[str, type]] = {
        "process": Absorbing,
        "parameterization": PredictsClean,
    }
    noise_levels: ClassVar[int] = 0

    def __init__(
        self,
        model: Model,
        score: ScoreName = "confidence",
        at_once: str = "1",
        t_min: float = 1e-3,
    ) -> None:
        super().__init__(model)
        rule = rule_of(score, at_once)
        if rule.score.random:
            raise ValueError(
                f"score is {score}, and a text in a random order has many paths, so that its "
                "likelihood has no such formula; choose another score, or measure the bound, which "
                "is the mean over random orders"
            )
        self.training_loss = ShortestNelbo(model, t_min)
        self.rule = rule

    def forward(self, batch: Batch, draws: Draws) -> Loss:
        """The bound's integrand at times in [t_min, 1] of the model's schedule."""
        return self.training_loss.forward(batch, draws)

    @torch.no_grad()
    def bound(self, batch: Batch, draws: Draws, protocol: Protocol = "exact") -> Loss:
        """The negative log-likelihood, which is exact under both protocols."""
        nats = ordered_nats(Denoiser(self.model), self.rule, batch)
        return Loss(nats.sum(), nats.float())


def ordered_nats(denoiser: Denoiser, rule: Rule, batch: Batch) -> torch.Tensor:
    """-log p of each counted token at the call that replaces it, `[batch, length]`, float64."""
    x0, counted = batch.x0, batch.mask
    masks = denoiser.process.sample_prior(tuple(x0.shape), _no_draws(x0.device))
    x_t = torch.where(counted, masks, x0)
    first = counted.sum(-1, keepdim=True)
    nats = torch.zeros(x0.shape, dtype=torch.float64, device=x0.device)
    left = counted
    for number in range(x0.shape[1]):
        open_ = left.any(-1)
        if not open_.any():
            break
        texts = Texts(x_t, left, first, x0, batch.conditions).among(open_)
        answer = call(denoiser, rule, texts, _known, number=number)
        going = torch.zeros_like(left)
        going[open_] = answer.chosen
        nats[going] = -answer.log_probs[answer.chosen]
        x_t, left = torch.where(going, x0, x_t), left & ~going
    return nats


def _known(law: LogProbs, known: Tokens) -> Tokens:
    return known


def _no_draws(device: torch.device) -> torch.Generator:
    """The prior of masks is one text, which no generator changes."""
    return torch.Generator(device)
