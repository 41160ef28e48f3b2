"""The parameterization: the meaning of the network's output.

    x_theta = softmax(logits / temperature)

A parameterization that predicts the clean token implements one method, `log_x0`; scores, bounds and
samplers follow from it.
"""

import math
from typing import final

from platform_core.parameterization import PredictsClean, widen
from platform_core.process import Diffusion
from platform_core.types import Logits, LogProbs, Noise, Tokens


@final
class NewPart(PredictsClean):
    """The softmax of the logits at a temperature is the distribution of the clean token.

    Args:
        temperature: above 1 flattens predictions, below 1 sharpens them; 1 equals the
            parameterization mean. Must be above 0.

    Raises:
        ValueError: temperature is not above 0.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature is {temperature:g}; it must be above 0, for example 1.5")
        self.temperature = temperature

    def log_x0(self, logits: Logits, x_t: Tokens, alpha: Noise, process: Diffusion) -> LogProbs:
        """log softmax of logits / temperature, over all states of the process."""
        return (widen(logits) / self.temperature).log_softmax(-1)
