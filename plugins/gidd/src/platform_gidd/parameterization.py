"""GIDD's parameterization: clean text has no masks, and the network need not learn that."""

from typing import final

from torch.nn import functional

from platform_core.parameterization import PredictsClean, widen
from platform_core.process import LOG_ZERO, Diffusion
from platform_core.types import Logits, LogProbs, Noise, Tokens


@final
class Vocabulary(PredictsClean):
    """The softmax of the logits of the vocabulary; nothing on a mask, nothing carried over.

    Source: GIDD, arXiv:2503.04482.
    """

    def log_x0(self, logits: Logits, x_t: Tokens, alpha: Noise, process: Diffusion) -> LogProbs:
        """log x_theta, with `LOG_ZERO` for log 0."""
        law = widen(logits)[..., : process.vocab_size].log_softmax(-1)
        return functional.pad(law, (0, process.num_states - process.vocab_size), value=LOG_ZERO)
