"""MDLM's objective: the bound of masks, which is a weighted cross-entropy.

    f_t = -alpha' / (1 - alpha) ( -log x_theta[x_0] )  at masks, 0 elsewhere
    T steps:  T (alpha_s - alpha_t) / (1 - alpha_t) in place of -alpha' / (1 - alpha)

Tests hold it equal to `platform_core.objective.Nelbo`.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import ClassVar, Literal, final

import torch

from platform_core.model import Model
from platform_core.objective import DiffusionObjective
from platform_core.parameterization import MaskFree
from platform_core.process import Absorbing
from platform_core.schedule import Stepwise
from platform_core.types import Logits, Nats, Noise, Tokens

Weighting = Callable[[Noise, Noise], Noise]
"""(alpha, slope) -> what a token's cross-entropy counts."""


@final
class MaskedNelbo(DiffusionObjective):
    """The bound of masks for a network that never predicts one.

    Args:
        t_min: training draws times from [t_min, 1]; the published models use 1e-3. Without it, the
            rare times close to 0 give gradients of unbounded variance. The exact bound ignores it.
        weighting: what training multiplies the cross-entropy at masks by. bound: what the bound
            does. low-var: 1, whose gradients vary less. The bound itself is always the bound.
        num_steps: bound and training for this many steps of the schedule instead of continuous
            time; the bound is then a little higher, and that of samples drawn in so many steps.

    In T steps, the first one is the reconstruction term: its coefficient is T.
    Source: MDLM, arXiv:2406.07524.
    """

    requires: ClassVar[Mapping[str, type]] = {"process": Absorbing, "parameterization": MaskFree}

    def __init__(
        self,
        model: Model,
        t_min: float = 1e-3,
        weighting: Literal["bound", "low-var"] = "bound",
        num_steps: int | None = None,
    ) -> None:
        super().__init__(model, t_min)
        self.descended = partial(self._weighted, _WEIGHTINGS[weighting])
        if num_steps is not None:
            self.schedule = self.exact_schedule = Stepwise(self.denoiser.schedule, num_steps)

    def row_loss(self, logits: Logits, x_t: Tokens, x0: Tokens, alpha: Noise, slope: Noise) -> Nats:
        """The bound's weight times the cross-entropy."""
        return self._weighted(bound_weight, logits, x_t, x0, alpha, slope)

    def _weighted(
        self,
        weigh: Weighting,
        logits: Logits,
        x_t: Tokens,
        x0: Tokens,
        alpha: Noise,
        slope: Noise,
    ) -> Nats:
        parameterization, process = self.denoiser.parameterization, self.denoiser.process
        assert isinstance(parameterization, MaskFree), "see requires"
        log_x0 = parameterization.log_x0(logits, x_t, process)
        nats = -log_x0.gather(-1, x0[..., None]).squeeze(-1)
        weight = torch.where(process.changeable(x_t), weigh(alpha, slope), 0.0)
        return weight.to(nats.dtype) * nats


def bound_weight(alpha: Noise, slope: Noise) -> Noise:
    """-alpha' / (1 - alpha): the rate at which a token that is a mask at t is one no more."""
    return -slope / (1 - alpha)


def unit_weight(alpha: Noise, slope: Noise) -> Noise:
    """1."""
    return torch.ones_like(alpha)


_WEIGHTINGS: Mapping[str, Weighting] = {"bound": bound_weight, "low-var": unit_weight}
