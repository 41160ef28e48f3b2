"""Samplers that choose which masks to replace by what the network says of them.

    ordered    ranks the masks by their laws, then draws tokens at those that go
    maskgit    draws a token at every mask, then keeps the likeliest of them

Both read only texts that still hold masks, and keep the tokens of a prompt in their places.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, final

import torch

from platform_core import categorical
from platform_core.categorical import Truncation, truncation
from platform_core.model import Model
from platform_core.parameterization import PredictsClean
from platform_core.process import Absorbing
from platform_core.sampler import Prompt, Sample, Sampler, Walk
from platform_core.types import LogProbs, Tokens
from platform_orders.reading import Texts, call
from platform_orders.rules import Drawn, Rule, ScoreName, pace_of, rule_of


class ByRule(Sampler):
    """Replaces masks in the order of a rule until none is left; subclasses make the rule."""

    requires: ClassVar[Mapping[str, type]] = {
        "process": Absorbing,
        "parameterization": PredictsClean,
    }

    rule: Rule
    truncation: Truncation

    @torch.no_grad()
    def __call__(
        self,
        model: Model,
        shape: tuple[int, int],
        generator: torch.Generator,
        prompt: Prompt | None = None,
    ) -> Sample:
        """Replace all masks; a text counts the calls that it took part in."""
        walk = Walk.begin(model, self.truncation, shape=shape, generator=generator, prompt=prompt)
        x_t, changeable = walk.noise, walk.denoiser.process.changeable
        first = (changeable(x_t) & ~walk.fixed).sum(-1, keepdim=True)
        each = torch.zeros(shape[0], dtype=torch.long, device=x_t.device)

        def draw(law: LogProbs, _: Tokens) -> Tokens:
            return categorical.draw(self.truncation(law).exp(), generator)

        for number in range(shape[1]):
            masked = changeable(x_t) & ~walk.fixed
            open_ = masked.any(-1)
            if not open_.any():
                break
            texts = Texts(x_t, masked, first, x_t).among(open_)
            answer = call(walk.denoiser, self.rule, texts, draw, number=number, generator=generator)
            x_t = x_t.clone()
            x_t[open_] = torch.where(answer.chosen, answer.tokens, texts.x_t)
            each += open_ * model.backbone.evaluations
        return walk.end(x_t)._replace(each=each)


@final
class Ordered(ByRule):
    """Replaces masks in an order that the network's laws decide, or a given one.

    Each call reads the text, ranks its masks by their laws and draws tokens at the first of them,
    independently. The more masks at once, the fewer calls, and the further the tokens are from
    their joint law. With at_once 1 and score random the law is that of `first-hitting`.

    Args:
        score: which masks are replaced first. confidence: those whose most likely token is
            likeliest. margin: those where it leads the second by most. entropy: those whose law has
            the lowest entropy. left-to-right, random: whatever the network says.
        at_once: how many masks a call replaces. NUMBER: so many. cosine-CALLS, linear-CALLS: so
            many that none is left after so many calls. threshold-P: all whose most likely token has
            at least probability P, and at least one. entropy-NATS: as many as have together at most
            so much entropy, not counting the largest.
        law: options of every draw; see `platform_core.categorical.truncation`. They change the
            tokens that are drawn, not the order.

    Under masks without a noise level, a prompt conditions exactly.
    Source: confidence and budgets, arXiv:2202.04200; margin, arXiv:2502.06768; thresholds,
    arXiv:2505.22618; entropy bounds, arXiv:2505.24857.
    """

    def __init__(self, score: ScoreName = "confidence", at_once: str = "1", **law: Any) -> None:
        self.rule = rule_of(score, at_once)
        self.truncation = truncation(**law)


@final
class MaskGit(ByRule):
    """Draws a token at every mask, and keeps those that were likeliest among the drawn.

    Not the same as ranking the masks before tokens are drawn: a mask where an unlikely token
    happened to be drawn waits.

    Args:
        at_once: how many masks a call replaces, as of the sampler `ordered`; cosine-CALLS is
            MaskGIT's.
        noise: Gumbel noise, times this number and the share of masks that are left, is added to
            the log-probabilities of the drawn tokens; 0 adds none. The published code lets it fall
            with the share of calls that are left instead.
        law: options of every draw; see `platform_core.categorical.truncation`.

    Raises:
        ValueError: noise is below 0, or at_once is unknown.

    Source: MaskGIT, arXiv:2202.04200.
    """

    unclaimed: ClassVar[Mapping[str, str]] = {
        "draws-the-data": "masks where a likely token was drawn go first, so likely tokens appear "
        "more often than in the data"
    }

    def __init__(self, at_once: str = "cosine-32", noise: float = 1.0, **law: Any) -> None:
        if not 0 <= noise < torch.inf:
            raise ValueError(f"noise is {noise:g}; it must be at least 0 (0 adds none)")
        self.rule = Rule(Drawn(noise), pace_of(at_once))
        self.truncation = truncation(**law)
