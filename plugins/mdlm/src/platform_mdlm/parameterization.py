"""SUBS, MDLM's parameterization: no probability for the mask, and tokens are carried over.

    x_theta[mask] = 0                     zero masking probability
    x_theta = 1{x_t} where x_t != mask    carry-over

Both substitute known facts for predictions; the objective and the samplers rely on the first.
"""

from typing import final

import torch
from torch.nn import functional

from platform_core.parameterization import MaskFree, cross_entropy, widen
from platform_core.process import LOG_ZERO, Diffusion
from platform_core.types import Logits, LogProbs, Nats, Noise, Tokens


@final
class Subs(MaskFree):
    """The softmax of the logits of the vocabulary at masks; the token itself elsewhere.

    Source: MDLM, arXiv:2406.07524, section 3.2 (SUBS: substitution).
    """

    def log_x0(self, logits: Logits, x_t: Tokens, alpha: Noise, process: Diffusion) -> LogProbs:
        """log x_theta, with `LOG_ZERO` for log 0; the logit of the mask is not read."""
        predicted = widen(logits)[..., : process.vocab_size].log_softmax(-1)
        clean = ~process.changeable(x_t)
        # The padded copy is overwritten in place, which saves a third wide tensor.
        law = functional.pad(predicted, (0, 1), value=LOG_ZERO)
        law = law.masked_fill_(clean[..., None], LOG_ZERO)
        here = torch.where(clean, 0.0, LOG_ZERO).to(law.dtype)
        return law.scatter_(-1, x_t[..., None], here[..., None])

    def nats(
        self, logits: Logits, x_t: Tokens, x0: Tokens, alpha: Noise, process: Diffusion
    ) -> Nats:
        """-log x_theta[x_0]: the cross-entropy over the vocabulary at masks, without making the law
        of every token; elsewhere 0 if x_0 is x_t and -`LOG_ZERO` if not.
        """
        kept = torch.where(x_t == x0, 0.0, -LOG_ZERO)
        predicted = cross_entropy(logits, x0, process.vocab_size)
        return torch.where(process.changeable(x_t), predicted, kept.to(predicted.dtype))
