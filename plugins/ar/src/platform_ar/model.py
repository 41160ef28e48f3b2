"""The autoregressive view of a model, the counterpart of `platform_core.model.Denoiser`.

Used by the objective `next-token` and the sampler `left-to-right`.
"""

from typing import final

from platform_ar.parameterization import NextLogProbs, NextToken
from platform_ar.process import Ar
from platform_core.backbone import Reader, reader
from platform_core.model import Model
from platform_core.types import Conditions, Hidden, Logits, Tokens


@final
class Predictor:
    """A model whose process is `Ar` and whose output is the law of the next token."""

    def __init__(self, model: Model) -> None:
        assert isinstance(model.process, Ar), "parts that use Predictor require process ar"
        assert isinstance(model.parameterization, NextToken), (
            "parts that use Predictor require parameterization next-token"
        )
        self.model = model
        self.process = model.process
        self.parameterization = model.parameterization

    def encode(self, inputs: Tokens, conditions: Conditions | None = None) -> Hidden:
        """Features of every position; those of a position predict the token after it."""
        return self.model.encode(inputs, None, conditions)

    def reader(self, length: int) -> Reader:
        """A reader that computes the features from left to right, for up to `length` tokens."""
        return reader(self.model.backbone, length)

    def log_next(self, logits: Logits) -> NextLogProbs:
        """Log-probabilities of the next token over the vocabulary."""
        return self.parameterization.log_next(logits, self.process)
