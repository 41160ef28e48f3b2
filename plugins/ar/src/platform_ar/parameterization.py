"""The parameterization of autoregression: logits of a position give the law of the token after it.

Used by the objective `next-token` and the sampler `left-to-right`.
"""

from collections.abc import Mapping
from typing import ClassVar, final

from jaxtyping import Float
from torch import Tensor

from platform_ar.process import Ar
from platform_core.parameterization import Parameterization, cross_entropy, widen
from platform_core.types import Logits, Nats, Tokens

NextLogProbs = Float[Tensor, "*batch vocab_size"]
"""Log-probabilities of every token of the vocabulary; logits have one state more, the start."""


@final
class NextToken(Parameterization):
    """The softmax over the vocabulary; the start state is never predicted."""

    requires: ClassVar[Mapping[str, type]] = {"process": Ar}

    def log_next(self, logits: Logits, process: Ar) -> NextLogProbs:
        """log softmax of the logits of the vocabulary, in float32 or wider."""
        return widen(logits[..., : process.vocab_size]).log_softmax(-1)

    def nats(self, logits: Logits, target: Tokens, process: Ar) -> Nats:
        """-log p of each row's target, equal to `log_next` there."""
        return cross_entropy(logits, target, process.vocab_size)
