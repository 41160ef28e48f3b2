"""DUO's objective: the continuous-time bound of uniform noise, in closed form.

    q  = alpha e_{x_0} + (1 - alpha) / K          q' = alpha x_theta + (1 - alpha) / K
    f  = rate(z) / q[z] ( KL(q || q') + e^v - 1 - v ),   v = log q[z] / q'[z],   z = x_t

The sums over the vocabulary are carried out by hand, so that a row costs one logarithm per state.
Tests hold it equal to `platform_core.objective.Nelbo`.
"""

import math
from collections.abc import Mapping
from typing import ClassVar

import torch

from platform_core.objective import DiffusionObjective
from platform_core.parameterization import PredictsClean
from platform_core.process import Uniform
from platform_core.types import Logits, LogProbs, Nats, Noise, Tokens


class UniformNelbo(DiffusionObjective):
    """The bound of uniform noise for a network that predicts the clean token.

    Source: the Rao-Blackwellised NELBO of DUO, arXiv:2506.10892, which rewrites that of UDLM,
    arXiv:2412.10193, without a one-hot vector; regrouped here, see `uniform_nelbo`.
    """

    requires: ClassVar[Mapping[str, type]] = {
        "process": Uniform,
        "parameterization": PredictsClean,
    }

    def row_loss(self, logits: Logits, x_t: Tokens, x0: Tokens, alpha: Noise, slope: Noise) -> Nats:
        """`uniform_nelbo` of the predicted law."""
        parameterization = self.denoiser.parameterization
        assert isinstance(parameterization, PredictsClean), "see requires"
        log_x0 = parameterization.log_x0(logits, x_t, self.denoiser.process)
        return uniform_nelbo(log_x0, x_t, x0, alpha=alpha, slope=slope)


def uniform_nelbo(log_x0: LogProbs, x_t: Tokens, x0: Tokens, *, alpha: Noise, slope: Noise) -> Nats:
    """Integrand f_t >= 0 of the bound under uniform noise, in nats per unit of time.

    With r = K alpha / (1 - alpha), u_j = log(1 + r x_theta[j]), L = log(1 + r), z = x_t, x = x_0:

        q[z]        = (1 - alpha) (1 + r 1{z = x}) / K
        KL(q || q') = (1 - alpha) / K ( L - sum_j u_j + r (L - u_x) )
        v           = L 1{z = x} - u_z
        f           = -slope / (alpha K q[z]) ( KL + e^v - 1 - v )

    Put together term by term this is DUO's formula. There, terms of order 1 / alpha cancel each
    other; here KL and e^v - 1 - v are both >= 0, and whatever is per row is computed in float64.

    Args:
        log_x0: log x_theta, float32 or wider.
        x_t: noisy tokens.
        x0: clean tokens.
        alpha: signal level in (0, 1), float64.
        slope: d alpha / dt, float64.

    Source: arXiv:2506.10892 (its Rao-Blackwellised NELBO), arXiv:2412.10193.
    """
    num_states = log_x0.shape[-1]
    log_r = math.log(num_states) + alpha.log() - (-alpha).log1p()
    r, clean = log_r.exp(), log_r.exp().log1p()
    # exp and log1p of one sum keep two wide tensors for the backward pass, r * exp(log_x0) three.
    total = (log_x0 + log_r[..., None].to(log_x0.dtype)).exp().log1p().sum(-1).double()
    log_here = log_x0.gather(-1, torch.stack((x_t, x0), dim=-1)).double()
    u_t, u_0 = (log_here + log_r[..., None]).exp().log1p().unbind(-1)
    q_true = torch.where(x_t == x0, clean, 0.0)
    excess = q_true - u_t
    divergence = (1 - alpha) / num_states * (clean - total + r * (clean - u_0))
    q_here = (1 - alpha) / num_states * q_true.exp()
    f = -slope / (alpha * num_states * q_here) * (divergence + excess.expm1() - excess)
    return f.to(log_x0.dtype)
