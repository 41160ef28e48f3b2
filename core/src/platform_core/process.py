"""Processes: how clean tokens are noised, and what follows about the way back.

A process keeps a token with probability alpha and else redraws it from a prior pi:

    q(x_t | x_0) = alpha_t 1{x_t = x_0} + (1 - alpha_t) pi[x_t]

`Interpolating` derives everything from pi alone; `Absorbing` (pi is the mask) and `Uniform` only
name their pi. Families subclass these two to carry their own defaults. Objectives use `corrupt`,
`log_score` and `rate`; samplers the posterior.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from platform_core import categorical
from platform_core.types import LogProbs, Noise, Probs, Selected, Tokens

LOG_ZERO = -1e6
"""Stands for log 0 where gradients or products must stay finite: exp(-1e6) is 0 in every float
format.
"""


class Process:
    """What a model does to text before the network has to undo it.

    `causal` and `time_conditioned` are facts the backbone is built with: whether a position may see
    only those to its left, and whether the network is told the noise level.
    """

    causal: ClassVar[bool] = False
    requires: ClassVar[Mapping[str, type]] = {}

    def __init__(self, vocab_size: int, *, num_states: int, time_conditioned: bool) -> None:
        self.vocab_size = vocab_size
        self.num_states = num_states
        self.time_conditioned = time_conditioned


class Diffusion(Process, ABC):
    """A process with noise: a corruption of every level and the reverse steps that undo it."""

    @abstractmethod
    def sample_prior(self, shape: tuple[int, ...], generator: torch.Generator) -> Tokens:
        """Pure noise: tokens at t = 1, on the generator's device."""

    @abstractmethod
    def corrupt(self, x0: Tokens, alpha: Noise, generator: torch.Generator) -> Tokens:
        """Noisy tokens x_t drawn from q(x_t | x_0) at signal level alpha."""

    @abstractmethod
    def changeable(self, x_t: Tokens) -> Selected:
        """Positions whose token a reverse step may change; the bound is 0 at all others."""

    @abstractmethod
    def log_score(self, log_x0: LogProbs, x_t: Tokens, alpha: Noise) -> LogProbs:
        """log q_t(y) / q_t(x_t) for every state y, when the clean token has the law exp(log_x0)."""

    @abstractmethod
    def rate(self, x_t: Tokens, alpha: Noise, slope: Noise) -> Noise:
        """Rate at which the forward process jumps to x_t from any other state, per unit of time."""

    @abstractmethod
    def reverse(self, log_score: LogProbs, x_t: Tokens, alpha_s: Noise, alpha_t: Noise) -> Probs:
        """Law of the earlier tokens x_s given x_t, from a score."""

    @abstractmethod
    def posterior(self, log_x0: LogProbs, x_t: Tokens, alpha_s: Noise, alpha_t: Noise) -> Probs:
        """Law of the earlier tokens x_s given x_t, from a law of the clean token."""

    @abstractmethod
    def draw_posterior(
        self,
        log_x0: LogProbs,
        x_t: Tokens,
        alpha_s: Noise,
        alpha_t: Noise,
        *,
        generator: torch.Generator,
    ) -> Tokens:
        """A draw from `posterior` that does not build it."""


class PosteriorMixture(NamedTuple):
    """Weights, summing to 1, with which an earlier token is x_t itself, a draw from the denoiser's
    law, or a draw from the prior.
    """

    stay: Noise
    denoiser: Noise
    prior: Noise


class Interpolating(Diffusion):
    """All of a diffusion from one abstract prior that does not change with time."""

    @abstractmethod
    def prior(self, tokens: Tokens) -> Noise:
        """Prior probability of each of the given tokens."""

    def corrupt(self, x0: Tokens, alpha: Noise, generator: torch.Generator) -> Tokens:
        """Keeps each token with probability alpha, else redraws it from the prior."""
        level = torch.rand(x0.shape, generator=generator, dtype=torch.float64, device=x0.device)
        return torch.where(level < alpha, x0, self.sample_prior(tuple(x0.shape), generator))

    def changeable(self, x_t: Tokens) -> Selected:
        """Positions that noise can have reached: where the prior is positive."""
        return self.prior(x_t) > 0

    def log_score(self, log_x0: LogProbs, x_t: Tokens, alpha: Noise) -> LogProbs:
        """log q[y] - log q[x_t] with q = alpha x_0 + (1 - alpha) pi."""
        log_q = self._log_marginal(log_x0, alpha)
        return log_q - log_q.gather(-1, x_t[..., None])

    def rate(self, x_t: Tokens, alpha: Noise, slope: Noise) -> Noise:
        """-(slope / alpha) pi[x_t]: the same from every other state."""
        return -(slope / alpha) * self.prior(x_t)

    def reverse(self, log_score: LogProbs, x_t: Tokens, alpha_s: Noise, alpha_t: Noise) -> Probs:
        """The analytic step; exact when the score is.

            q(x_s | x_t) = q(x_t | x_s) q(x_s) / q(x_t),  1 >= alpha_s >= alpha_t > 0

        A learned score may be inconsistent: negative mass is clipped, and rows need not sum to 1.

        Source: Lou et al. 2024, arXiv:2310.16834; with a law of the clean token, the posterior of
        MDLM and DUO.
        """
        kept = alpha_t / alpha_s
        score = log_score.exp()
        moved = _like(score, 1 - kept)[..., None] * self._prior_row(score)
        earlier = (score - moved * score.sum(-1, keepdim=True)) / _like(score, kept)[..., None]
        return self._reach(x_t, kept, score) * earlier.clamp_min(0)

    def posterior(self, log_x0: LogProbs, x_t: Tokens, alpha_s: Noise, alpha_t: Noise) -> Probs:
        """Bayes' rule with the clean token's law put in; also at alpha_t = 0.

        q(x_s | x_t) = q(x_t | x_s) q(x_s) / q(x_t),  q(x_s) = alpha_s x_0 + (1 - alpha_s) pi
        """
        x0 = log_x0.exp()
        signal, noise = _like(x0, alpha_s)[..., None], _like(x0, 1 - alpha_s)[..., None]
        earlier = signal * x0 + noise * self._prior_row(x0)
        mass = self._reach(x_t, alpha_t / alpha_s, x0) * earlier
        return mass / mass.sum(-1, keepdim=True)

    def draw_posterior(
        self,
        log_x0: LogProbs,
        x_t: Tokens,
        alpha_s: Noise,
        alpha_t: Noise,
        *,
        generator: torch.Generator,
    ) -> Tokens:
        """One uniform number per row picks a part of `posterior_mixture`; only the rows that fall
        to the denoiser need a categorical draw.
        """
        parts = self.posterior_mixture(log_x0, x_t, alpha_s, alpha_t)
        level = torch.rand(x_t.shape, generator=generator, dtype=torch.float64, device=x_t.device)
        from_denoiser = level < parts.denoiser
        from_prior = ~from_denoiser & (level < parts.denoiser + parts.prior)
        x_s = torch.where(from_prior, self.sample_prior(tuple(x_t.shape), generator), x_t)
        x_s[from_denoiser] = categorical.draw(log_x0[from_denoiser].exp(), generator)
        return x_s

    def posterior_mixture(
        self, log_x0: LogProbs, x_t: Tokens, alpha_s: Noise, alpha_t: Noise
    ) -> PosteriorMixture:
        """The posterior, in parts that need the denoiser's law at x_t alone.

            stay:      alpha_t/alpha_s (alpha_s x_0[z] + (1 - alpha_s) pi[z])     z = x_t
            denoiser:  (1 - alpha_t/alpha_s) pi[z] alpha_s
            prior:     (1 - alpha_t/alpha_s) pi[z] (1 - alpha_s)

        each over their sum.
        """
        kept, here = alpha_t / alpha_s, self.prior(x_t)
        x0_here = log_x0.gather(-1, x_t[..., None]).squeeze(-1).double().exp()
        stay = kept * (alpha_s * x0_here + (1 - alpha_s) * here)
        denoiser, prior = (1 - kept) * here * alpha_s, (1 - kept) * here * (1 - alpha_s)
        total = stay + denoiser + prior
        return PosteriorMixture(stay / total, denoiser / total, prior / total)

    def _log_marginal(self, log_x0: LogProbs, alpha: Noise) -> LogProbs:
        signal = log_x0 + _like(log_x0, alpha.log())[..., None]
        noise = self._prior_row(log_x0).log() + _like(log_x0, (1 - alpha).log())[..., None]
        return torch.logaddexp(signal, noise)

    def _prior_row(self, like: Tensor) -> Tensor:
        return _like(like, self.prior(torch.arange(self.num_states, device=like.device)))

    def _reach(self, x_t: Tokens, kept: Noise, like: Probs) -> Probs:
        """q(x_t | x_s) for every x_s: kept 1{x_s = x_t} + (1 - kept) pi[x_t]."""
        jumped = _like(like, (1 - kept) * self.prior(x_t))[..., None].expand_as(like).clone()
        stayed = _like(like, kept)[..., None].expand(*x_t.shape, 1)
        return jumped.scatter_add_(-1, x_t[..., None], stayed)


class Absorbing(Interpolating):
    """Noise hides tokens behind a mask, whose id comes after the vocabulary.

    Args:
        time_conditioned: whether the network is told the noise level; it does not need to be,
            because the share of masks in the text says it already.

    Source: D3PM, arXiv:2107.03006, section 3.1; MDLM, arXiv:2406.07524.
    """

    def __init__(self, vocab_size: int, time_conditioned: bool = False) -> None:
        super().__init__(vocab_size, num_states=vocab_size + 1, time_conditioned=time_conditioned)
        self.mask_id = vocab_size

    def prior(self, tokens: Tokens) -> Noise:
        """1 at the mask, 0 elsewhere."""
        return (tokens == self.mask_id).double()

    def sample_prior(self, shape: tuple[int, ...], generator: torch.Generator) -> Tokens:
        """Masks only."""
        return torch.full(shape, self.mask_id, dtype=torch.long, device=generator.device)


class Uniform(Interpolating):
    """Noise replaces tokens by any of the vocabulary; the network must be told how noisy its input
    is.

    Source: D3PM, arXiv:2107.03006, section 3.1; UDLM, arXiv:2412.10193; DUO, arXiv:2506.10892.
    """

    def __init__(self, vocab_size: int) -> None:
        super().__init__(vocab_size, num_states=vocab_size, time_conditioned=True)

    def prior(self, tokens: Tokens) -> Noise:
        """1 / num_states for every token."""
        return torch.full(
            tokens.shape, 1 / self.num_states, dtype=torch.float64, device=tokens.device
        )

    def sample_prior(self, shape: tuple[int, ...], generator: torch.Generator) -> Tokens:
        """Every token equally often."""
        return torch.randint(self.num_states, shape, generator=generator, device=generator.device)


def log_one_hot(tokens: Tokens, num_states: int, dtype: torch.dtype = torch.float32) -> LogProbs:
    """Log-probabilities of a certain token: 0 there, `LOG_ZERO` elsewhere."""
    row = torch.full((*tokens.shape, num_states), LOG_ZERO, dtype=dtype, device=tokens.device)
    return row.scatter_(-1, tokens[..., None], 0.0)


def _like(other: Tensor, value: Tensor) -> Tensor:
    """Noise levels are float64; beside a row of states they take its dtype, or the whole row would
    be promoted.
    """
    return value.to(other.dtype)
