"""GIDD's objective: the bound, and the weights that training gives its terms.

    f = w { KL(q || q') + r - log r - 1 },  r = q[z] / q'[z],  w = rate(z) / q[z],  z = x_t

On the schedule `hybrid`, w is 1 / (t (1 - t)) at a mask and half of that at a wrong token: it has
no bound at the ends of time. Training replaces it; evaluation does not.

Source: GIDD, arXiv:2503.04482.
"""

import math
from collections.abc import Mapping
from typing import ClassVar, Literal, final

import torch

from platform_core.model import Model
from platform_core.objective import Nelbo
from platform_core.parameterization import ScoreBased
from platform_core.types import Logits, Nats, Noise, Tokens
from platform_gidd.process import Gidd

Weighting = Literal["bound", "clipped", "dynamic"]


@final
class HybridNelbo(Nelbo):
    """The bound of GIDD's noise; in training, with weights that the ends of time do not govern.

    Args:
        weighting: of training. bound: w itself. clipped: w, at most max_weight. dynamic: 2 at a
            mask, 1 at a wrong token and n[z] / q[z] at the right one, as w is at each time but for
            a factor.
        max_weight: of clipped. Above 0.

    Raises:
        ValueError: max_weight is not above 0.

    Source: GIDD, arXiv:2503.04482, which has of n / q the leading term.
    """

    requires: ClassVar[Mapping[str, type]] = {"process": Gidd, "parameterization": ScoreBased}

    def __init__(
        self,
        model: Model,
        t_min: float = 1e-3,
        weighting: Weighting = "dynamic",
        max_weight: float = 1.0,
    ) -> None:
        super().__init__(model, t_min)
        if not 0 < max_weight < math.inf:
            raise ValueError(f"max_weight is {max_weight:g}; it must be above 0, for example 1")
        assert isinstance(model.process, Gidd), "see requires"
        self.process, self.max_weight = model.process, max_weight
        self.weighting = weighting

    def descended(
        self, logits: Logits, x_t: Tokens, x0: Tokens, alpha: Noise, slope: Noise
    ) -> Nats:
        """The bound's integrand with the weight of training in place of w."""
        row = x_t, x0, alpha, slope
        weights = {"bound": self.weight, "clipped": self.clipped, "dynamic": self.dynamic}
        nats = self.row_loss(logits, *row)
        return nats * (weights[self.weighting](*row) / self.weight(*row)).to(nats.dtype)

    def weight(self, x_t: Tokens, x0: Tokens, alpha: Noise, slope: Noise) -> Noise:
        """The w of the bound, per unit of time."""
        return self.process.rate(x_t, alpha, slope) / self._mass(x_t, x0, alpha)

    def clipped(self, x_t: Tokens, x0: Tokens, alpha: Noise, slope: Noise) -> Noise:
        """The same, at most `max_weight`."""
        return self.weight(x_t, x0, alpha, slope).clamp_max(self.max_weight)

    def dynamic(self, x_t: Tokens, x0: Tokens, alpha: Noise, slope: Noise) -> Noise:
        """2 at a mask, 1 at a wrong token, n[z] / q[z] at the right one."""
        share = self.process.noise(x_t, alpha) / self._mass(x_t, x0, alpha)
        return torch.where(x_t == self.process.mask_id, 2.0, share)

    def _mass(self, x_t: Tokens, x0: Tokens, alpha: Noise) -> Noise:
        return torch.where(x_t == x0, alpha, 0.0) + self.process.noise(x_t, alpha)
