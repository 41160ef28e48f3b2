"""D3PM's objective: the bound of a chain of T steps.

    bound(x_0) = sum_i E_{x_t} KL( q(x_s | x_t, x_0) || p(x_s | x_t) ),  t = i / T, s = (i - 1) / T

with p the posterior of the predicted law. The first divergence, of the step to clean text, is the
reconstruction term -log p(x_0 | x_t); the last begins in pure noise, where the prior term is 0. As
T grows, the sum becomes the integral of `platform_core.objective.Nelbo`.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import ClassVar, final

import torch

from platform_core.model import Model
from platform_core.objective import DiffusionObjective
from platform_core.parameterization import PredictsClean
from platform_core.process import Absorbing, Diffusion, Uniform, log_one_hot
from platform_core.schedule import Stepwise
from platform_core.types import Logits, LogProbs, Nats, Noise, Tokens

Divergence = Callable[[LogProbs, Tokens, Tokens, Noise, Noise], Nats]
"""(log x_theta, x_t, x_0, alpha_s, alpha_t) -> KL of each row, in nats."""

SMALLEST_NOISE = 2.0**-60
"""Replaces 1 - alpha_s = 0 in quotients that are then multiplied by 0."""


@final
class DiscreteNelbo(DiffusionObjective):
    """The bound of a chain of T steps; training and evaluation draw all steps equally often.

    Step levels are the schedule's alpha(i / T), with alpha_0 = 1 and alpha_T = 0: under masks, the
    prior term of a last level above 0 would be infinite. Unmasked tokens are carried over, as in
    the samplers, and add no loss. Both protocols of evaluation do the same.

    Args:
        num_steps: number of steps T, at least 1; samples drawn in fewer steps are worse than the
            bound says.
        auxiliary: weight of -log x_theta[x_0] at noisy tokens, added in training only.

    Source: D3PM, arXiv:2107.03006, sections 3.3 and 3.4.
    """

    requires: ClassVar[Mapping[str, type]] = {
        "process": Diffusion,
        "parameterization": PredictsClean,
    }

    def __init__(self, model: Model, num_steps: int = 1000, auxiliary: float = 0.0) -> None:
        super().__init__(model, t_min=0.0)
        if not 0 <= auxiliary < math.inf:
            raise ValueError(
                f"auxiliary is {auxiliary:g}; it must be at least 0 (none), for example 0.01"
            )
        self.num_steps, self.auxiliary = num_steps, auxiliary
        self.schedule = self.exact_schedule = Stepwise(self.denoiser.schedule, num_steps)
        self.divergence = divergence(self.denoiser.process)

    def row_loss(self, logits: Logits, x_t: Tokens, x0: Tokens, alpha: Noise, slope: Noise) -> Nats:
        """T times the divergence of the step that begins at alpha."""
        return self._weighted(self._log_x0(logits, x_t, alpha), x_t, x0, alpha, slope)

    def descended(
        self, logits: Logits, x_t: Tokens, x0: Tokens, alpha: Noise, slope: Noise
    ) -> Nats:
        """`row_loss` plus `auxiliary` times the cross-entropy at noisy tokens."""
        if not self.auxiliary:
            return self.row_loss(logits, x_t, x0, alpha, slope)
        log_x0 = self._log_x0(logits, x_t, alpha)
        cross_entropy = -log_x0.gather(-1, x0[..., None]).squeeze(-1)
        noisy = self.denoiser.process.changeable(x_t)
        auxiliary = torch.where(noisy, self.auxiliary * cross_entropy, 0.0)
        return self._weighted(log_x0, x_t, x0, alpha, slope) + auxiliary

    def _weighted(
        self, log_x0: LogProbs, x_t: Tokens, x0: Tokens, alpha: Noise, slope: Noise
    ) -> Nats:
        alpha_s = (alpha - slope / self.num_steps).clamp_max(1)
        nats = self.num_steps * self.divergence(log_x0, x_t, x0, alpha_s, alpha)
        return nats.to(log_x0.dtype)

    def _log_x0(self, logits: Logits, x_t: Tokens, alpha: Noise) -> LogProbs:
        parameterization = self.denoiser.parameterization
        assert isinstance(parameterization, PredictsClean), "see requires"
        return parameterization.log_x0(logits, x_t, alpha, self.denoiser.process)


def divergence(process: Diffusion) -> Divergence:
    """The fastest form of KL( q(x_s | x_t, x_0) || p(x_s | x_t) ) for a process."""
    if isinstance(process, Absorbing):
        return partial(absorbing_divergence, mask_id=process.mask_id)
    if isinstance(process, Uniform):
        return uniform_divergence
    return partial(posterior_divergence, process=process)


def posterior_divergence(
    log_x0: LogProbs,
    x_t: Tokens,
    x0: Tokens,
    alpha_s: Noise,
    alpha_t: Noise,
    *,
    process: Diffusion,
) -> Nats:
    """KL between two posteriors, summed over the states of each row: the definition."""
    certain = log_one_hot(x0, log_x0.shape[-1], log_x0.dtype)
    true = process.posterior(certain, x_t, alpha_s, alpha_t)
    learned = process.posterior(log_x0, x_t, alpha_s, alpha_t)
    # Not xlogy, whose gradient at 0 is NaN: the true law, too, may depend on weights of the noise.
    log_true, log_learned = (torch.where(true > 0, law, 1.0).log() for law in (true, learned))
    return (true * log_true - true * log_learned).sum(-1)


def absorbing_divergence(
    log_x0: LogProbs, x_t: Tokens, x0: Tokens, alpha_s: Noise, alpha_t: Noise, *, mask_id: int
) -> Nats:
    """The divergence at a mask, 0 elsewhere, from two entries of a row.

    With X = x_theta[x_0], M = x_theta[mask], c = (alpha_s - alpha_t) / (1 - alpha_t):

        KL = c (A_t - log X) + (1 - c) (A_t - A_s),  A = log(1 + alpha M / (1 - alpha))

    where the second term is 0 at alpha_s = 1. Published code (DUO's) has 1 - alpha_s in the place
    of alpha_s; the tests show the difference. With M = 0 it is MDLM's weighted cross-entropy.
    """
    masks = torch.full_like(x0, mask_id)
    log_clean, log_mask = log_x0.gather(-1, torch.stack((x0, masks), dim=-1)).double().unbind(-1)
    noise_s, noise_t = 1 - alpha_s, 1 - alpha_t
    at_t = (alpha_t * log_mask.exp() / noise_t).log1p()
    at_s = (alpha_s * log_mask.exp() / noise_s.clamp_min(SMALLEST_NOISE)).log1p()
    nats = ((alpha_s - alpha_t) * (at_t - log_clean) + noise_s * (at_t - at_s)) / noise_t
    return torch.where(x_t == mask_id, nats, 0.0)


def uniform_divergence(
    log_x0: LogProbs, x_t: Tokens, x0: Tokens, alpha_s: Noise, alpha_t: Noise
) -> Nats:
    """The divergence under uniform noise, with one sum over the vocabulary.

    With z = x_t, x = x_0, q = alpha e_x + (1 - alpha) / K and q' the same of x_theta, the posterior
    is Q[y] = q(z | y) q_s[y] / q_t[z], and its first factor cancels in Q / P:

        KL = sum_y Q[y] log(q_s[y] / q'_s[y]) - log(q_t[z] / q'_t[z])

    For y other than x, q_s[y] / q'_s[y] = 1 / (1 + r x_theta[y]), r = K alpha_s / (1 - alpha_s),
    and Q[y] is the same for all of them but y = z. Terms that nearly cancel for small steps are
    computed in float64.
    """
    num_states = log_x0.shape[-1]
    noise_s, noise_t = (1 - alpha_s) / num_states, (1 - alpha_t) / num_states
    kept = alpha_t / alpha_s
    same = x_t == x0
    log_here = log_x0.gather(-1, torch.stack((x_t, x0), dim=-1)).double()
    log_z, log_x = log_here.unbind(-1)

    q_t = torch.where(same, alpha_t, 0.0) + noise_t
    jumped = (1 - kept) / num_states
    at_x = (torch.where(same, kept, 0.0) + jumped) * (alpha_s + noise_s) / q_t
    other, stayed = jumped * noise_s / q_t, torch.where(same, 0.0, kept) * noise_s / q_t

    log_r = alpha_s.log() - noise_s.clamp_min(SMALLEST_NOISE).log()
    total = (log_x0 + log_r[..., None].to(log_x0.dtype)).exp().log1p().sum(-1).double()
    u_z, u_x = (log_here + log_r[..., None]).exp().log1p().unbind(-1)

    gain_x = (alpha_s + noise_s).log() - torch.logaddexp(alpha_s.log() + log_x, noise_s.log())
    gain_z = q_t.log() - torch.logaddexp(alpha_t.log() + log_z, noise_t.log())
    return at_x * gain_x - other * (total - u_x) - stayed * u_z - gain_z
