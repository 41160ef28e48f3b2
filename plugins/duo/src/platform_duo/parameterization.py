"""A network that predicts the clean token from all noisy tokens, its own position's included.

For one position with noisy token z, and w[j] = q(z | x_0 = j) = alpha 1{j = z} + (1 - alpha) / K:

    D[j]   = p(x_0 = j | all noisy tokens)         what plain cross-entropy fits
    loo[j] = p(x_0 = j | all OTHER noisy tokens)   what the posterior and the bound need
    loo[j] = (D[j] / w[j]) / sum_i D[i] / w[i]

Of the logits of D only that of z changes, since w[z] / w[j] = 1 + K alpha / (1 - alpha), j != z.
"""

from collections.abc import Mapping
from typing import ClassVar, final

import torch

from platform_core.parameterization import PredictsClean, widen
from platform_core.process import Diffusion, Uniform
from platform_core.types import Logits, LogProbs, Noise, Tokens


@final
class Denoising(PredictsClean):
    """The softmax of the logits is the law of the clean token given all noisy tokens.

    Samplers and bounds get the leave-one-out law, as from `mean`, and so do temperature, top_k,
    top_p and min_p. Train it with the objective `denoising-cross-entropy`, or with a bound.

    Source: the leave-one-out law of uniform noise, arXiv:2605.22765.
    """

    requires: ClassVar[Mapping[str, type]] = {"process": Uniform}

    def log_x0(self, logits: Logits, x_t: Tokens, alpha: Noise, process: Diffusion) -> LogProbs:
        """log loo, in float32 or wider."""
        return with_evidence(widen(logits), x_t, -evidence(alpha, process))


def evidence(alpha: Noise, process: Diffusion) -> Noise:
    """log w[z] / w[j], in nats: how much a noisy token says for the clean token being the same."""
    noise = (1 - alpha).clamp_min(torch.finfo(alpha.dtype).eps)
    return (process.vocab_size * alpha / noise).log1p()


def with_evidence(log_law: LogProbs, x_t: Tokens, nats: Noise) -> LogProbs:
    """A law with the log-probability of the noisy token raised by some nats, normalised again."""
    index = x_t[..., None]
    extra = nats.to(log_law.dtype).expand(x_t.shape)[..., None]
    return log_law.scatter_add(-1, index, extra).log_softmax(-1)


def log_denoised(log_x0: LogProbs, x_t: Tokens, alpha: Noise, process: Diffusion) -> LogProbs:
    """log D of a leave-one-out law."""
    return with_evidence(log_x0, x_t, evidence(alpha, process))
