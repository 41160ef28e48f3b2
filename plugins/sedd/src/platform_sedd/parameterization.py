"""SEDD's parameterization: the network's output is a score.

    s[y] = q_w[y] / q_w[x_t],  q_w = alpha w + n,  w[y] = exp(net[y]) / V

with n = (1 - alpha) pi the mass of the noise, V the size of the vocabulary and w = 0 at a mask. The
weights w need not sum to 1; in this a score differs from a law of the clean token.
"""

import math
from collections.abc import Mapping
from functools import partial
from typing import ClassVar, final

import torch

from platform_core import categorical
from platform_core.categorical import Truncation
from platform_core.model import above_noise
from platform_core.parameterization import ClosedBound, ScoreBased, cross_entropy, widen
from platform_core.process import LOG_ZERO, Absorbing, Diffusion, Mixing, Thinned
from platform_core.types import Logits, LogProbs, Nats, Noise, Tokens


@final
class Score(ScoreBased):
    """Logits give the score q_t(y) / q_t(x_t), which is 1 at x_t.

    Logits of 0 give the score of the uniform law. At a mask, the score is SEDD's:

        log s[y] = net[y] - log(expm1(sigma)) - log V,  sigma = -log alpha

    For uniform noise SEDD takes log s[y] = net[y]. An error of the network then does not vanish
    where almost no signal is left and the true score is 1, and the bound, an integral over
    d alpha / alpha, is infinite. Here the network scales w for both kinds of noise: without signal
    the score is 1, and without noise exp(net[y] - net[x_t]).

    Source: SEDD, arXiv:2310.16834, and its code (`scale_by_sigma`).
    """

    requires: ClassVar[Mapping[str, type]] = {"process": Mixing}

    def log_weights(self, logits: Logits, process: Diffusion) -> LogProbs:
        """log w, in float32 or wider."""
        weights = widen(logits) - math.log(process.vocab_size)
        weights[..., process.vocab_size :] = LOG_ZERO
        return weights

    def log_score(self, logits: Logits, x_t: Tokens, alpha: Noise, process: Diffusion) -> LogProbs:
        """The score of the process, with w in place of the law of the clean token."""
        return process.log_score(self.log_weights(logits, process), x_t, alpha)

    def sharpened_score(
        self,
        logits: Logits,
        x_t: Tokens,
        alpha: Noise,
        *,
        process: Diffusion,
        truncation: Truncation,
    ) -> LogProbs:
        """`truncate` of the score."""
        assert isinstance(process, Mixing), "see requires"
        log_score = self.log_score(logits, x_t, alpha, process)
        return truncate(log_score, x_t, alpha, process=process, truncation=truncation)

    def closed_bound(self, process: Diffusion) -> ClosedBound | None:
        """`masked_entropy` for noise that masks."""
        return partial(masked_entropy, process=process) if isinstance(process, Absorbing) else None

    def thin(
        self,
        x_t: Tokens,
        alpha_s: Noise,
        alpha_t: Noise,
        *,
        process: Diffusion,
        generator: torch.Generator,
    ) -> Thinned:
        """Every changeable token is open; the score says how likely each one changes."""
        return Thinned(process.changeable(x_t), alpha_s)

    def draw_open(
        self,
        logits: Logits,
        x_t: Tokens,
        alpha_s: Noise,
        alpha_t: Noise,
        *,
        process: Diffusion,
        truncation: Truncation,
        generator: torch.Generator,
    ) -> Tokens:
        """Draw from the law of the analytic step, in float64; negative mass counts as 0."""
        assert isinstance(process, Mixing), "see requires"
        alpha_s, alpha_t = above_noise(alpha_s), above_noise(alpha_t)
        log_score = self.sharpened_score(
            logits.double(), x_t, alpha_t, process=process, truncation=truncation
        )
        return categorical.draw(process.reverse(log_score, x_t, alpha_s, alpha_t), generator)

    def most_likely(self, logits: Logits, x_t: Tokens, alpha: Noise, process: Diffusion) -> Tokens:
        """The mode of the clean law that the score implies: the token with the largest logit."""
        return logits[..., : process.vocab_size].argmax(-1)


def masked_entropy(
    logits: Logits, x_t: Tokens, x0: Tokens, alpha: Noise, slope: Noise, *, process: Absorbing
) -> Nats:
    """-alpha' / (1 - alpha) ( sum(w) - 1 - log w[x_0] ) at masks, 0 elsewhere.

    log sum(w) is the cross-entropy at x_0 plus log w[x_0], which needs no copy of the logits.
    """
    here = widen(logits.gather(-1, x0[..., None]).squeeze(-1)) - math.log(process.vocab_size)
    log_sum = cross_entropy(logits, x0, process.vocab_size) + here
    divergence = log_sum.expm1() - here
    weight = torch.where(process.changeable(x_t), -slope / (1 - alpha), 0.0)
    return weight.to(divergence.dtype) * divergence


def truncate(
    log_score: LogProbs,
    x_t: Tokens,
    alpha: Noise,
    *,
    process: Mixing,
    truncation: Truncation,
) -> LogProbs:
    """The score after a truncation of the clean law that it implies.

        score = c x_0 + n sum(score)

    x_0 is the score without its noise, with negative mass set to 0. The mass that the truncation
    removes from x_0 goes to the kept tokens, in proportion. Under a parameterization that predicts
    x_0, the result is the score of the truncated prediction. If nothing is removed, the score is
    unchanged.
    """
    score = log_score.exp()
    clean = process.staggered_score(score, torch.ones_like(alpha), alpha)
    law = clean.clamp_min(0)
    law = law / law.sum(-1, keepdim=True)
    share = torch.where(law > 0, truncation(law.log()).exp() / law, 1.0)
    changed = (score + alpha[..., None] * clean * (share - 1)).clamp_min(0).log()
    return changed - changed.gather(-1, x_t[..., None])
