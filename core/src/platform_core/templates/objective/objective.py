"""The objective: the loss of training, and the bound on -log p that evaluation reports.

    training:   (1 - alpha)^power f        evaluation:   f, the integrand of the bound

`Nelbo` computes f for any diffusion process and score-based parameterization. An objective with a
closed form of its own derives from `DiffusionObjective` and implements one method, `row_loss`.
"""

import math
from typing import final

from platform_core.model import Model
from platform_core.objective import Nelbo
from platform_core.types import Logits, Nats, Noise, Tokens


@final
class NewPart(Nelbo):
    """The bound of any diffusion; training gives less weight to almost clean text.

    Args:
        t_min: training draws times from [t_min, 1]; the exact bound ignores it.
        power: the weight of a noise level is (1 - alpha) to this power; 0 is the bound itself. At
            least 0.

    Raises:
        ValueError: an option is out of range.
    """

    def __init__(self, model: Model, t_min: float = 1e-3, power: float = 1.0) -> None:
        super().__init__(model, t_min)
        if not 0 <= power < math.inf:
            raise ValueError(f"power is {power:g}; it must be at least 0, for example 1")
        self.power = power

    def descended(
        self, logits: Logits, x_t: Tokens, x0: Tokens, alpha: Noise, slope: Noise
    ) -> Nats:
        """`row_loss` times the weight of its noise level."""
        nats = self.row_loss(logits, x_t, x0, alpha, slope)
        return nats * ((1 - alpha) ** self.power).to(nats.dtype)
