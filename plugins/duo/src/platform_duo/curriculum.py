"""DUO's curriculum: the network first reads soft tokens, which reveal some of the clean text.

    loss(step) = f(x_t, x_theta(softmax(w / tau)), alpha(t), alpha'(t); x_0)    step < end
                 f(x_t, x_theta(x_t), ...), the bound                           from then on

where w is the noisy one-hot vector of `relaxation`, x_t the argmax of w, and alpha the operator of
`gaussian` at gamma(t), so that x_t has the law that f assumes.
"""

import math
from dataclasses import dataclass
from typing import final

from platform_core.draws import Draws
from platform_core.model import Model
from platform_core.objective import Noised
from platform_core.types import Tokens
from platform_duo.objective import UniformNelbo
from platform_duo.relaxation import ArgmaxRule, DenseNoise, LargestNoise, Relaxation
from platform_duo.schedule import Gaussian


@dataclass(frozen=True)
class Temperature:
    """Temperature tau of each step: log tau changes linearly from `start` to `end`.

    Args:
        start: tau until step `first`; above 0.
        end: tau from step `last` on; above 0.
        first: step at which tau begins to change; at least 0.
        last: step at which tau reaches `end`; at least `first`.

    Raises:
        ValueError: an argument is out of range.
    """

    start: float
    end: float
    first: int
    last: int

    def __post_init__(self) -> None:
        if not (0 < self.start < math.inf and 0 < self.end < math.inf):
            raise ValueError(
                f"tau_start is {self.start:g} and tau_end {self.end:g}; both must be above 0; the "
                "paper's are 1e-3"
            )
        if not 0 <= self.first <= self.last:
            raise ValueError(
                f"tau_from is {self.first} and tau_until {self.last}, but 0 <= tau_from <= "
                "tau_until; tau_until is end unless it is given"
            )

    def at(self, step: int) -> float:
        """Temperature tau of a training step."""
        if step >= self.last:
            return self.end
        progress = max(0, step - self.first) / max(1, self.last - self.first)
        return math.exp((1 - progress) * math.log(self.start) + progress * math.log(self.end))


@final
class Curriculum(UniformNelbo):
    """Trains on soft tokens up to step `end`, then on the bound; evaluation reports the bound.

    The loss of the curriculum is no bound: soft tokens reveal more than x_t, so the loss is lower
    and its gradients vary less. In the limit of tau 0, with gamma over all noise levels, the loss
    is the bound. Evaluation reports the bound of hard tokens at every step of training.

    Args:
        t_min: training draws times from [t_min, 1]; the published models use 1e-3. The exact bound
            ignores it.
        end: number of updates of the curriculum; the default is half of a run of 800 steps, and the
            paper takes 500,000 of 1,000,000.
        gamma_min: -log of the signal-to-noise ratio at t = 0; by default alpha is 0.95 there.
        gamma_max: -log of the signal-to-noise ratio at t = 1; by default alpha is 0.05 there. The
            paper's window is -3.55 to -1.85 at 50,257 states.
        tau_start: temperature of the softmax at the start; above 0.
        tau_end: temperature of the softmax from update `tau_until` on; above 0.
        tau_from: update at which log tau begins to change.
        tau_until: update at which log tau stops changing; by default `end`.
        top_k: number of the largest noise coordinates to draw, at least 2; by default all. The
            network then averages top_k embeddings. DUO's second paper (Psi-samplers) trains with 2.
        argmax: how the noisy token is found, with top_k. exact: the token of the largest
            coordinate. in-top-k: the clean token wherever it is among the top_k, a mistake of the
            published code; at 50,257 states, gamma -3 and top_k 2, 68 % of the tokens are then
            clean, but the loss assumes 60 %.

    Source: DUO, arXiv:2506.10892, section 4; for top_k arXiv:2602.21185.
    """

    def __init__(
        self,
        model: Model,
        t_min: float = 1e-3,
        end: int = 400,
        gamma_min: float | None = None,
        gamma_max: float | None = None,
        tau_start: float = 1e-3,
        tau_end: float = 1e-3,
        tau_from: int = 0,
        tau_until: int | None = None,
        top_k: int | None = None,
        argmax: ArgmaxRule = "exact",
    ) -> None:
        super().__init__(model, t_min)
        if end < 0:
            raise ValueError(f"end is {end}; it must be at least 0 (no curriculum)")
        num_states = self.denoiser.process.num_states
        self.end = end
        self.gaussian = Gaussian(num_states, gamma_min, gamma_max)
        self.temperature = Temperature(
            tau_start, tau_end, tau_from, end if tau_until is None else tau_until
        )
        self.relaxation = relaxation(num_states, top_k, argmax)

    def noised(self, x0: Tokens, draws: Draws) -> Noised:
        """Soft inputs before update `end`; from then on the noisy tokens of the bound."""
        if draws.step >= self.end:
            return super().noised(x0, draws)
        t = draws.times(x0.shape[0], self.t_min)
        tau, gamma = self.temperature.at(draws.step), self.gaussian.gamma(t)
        soft, hard = draws.each(
            lambda row, level, generator: self.relaxation.draw(row, level, tau, generator),
            x0,
            gamma,
        )
        return Noised(soft, hard, self.gaussian.alpha(t), self.gaussian.slope(t))


def relaxation(num_states: int, top_k: int | None, argmax: ArgmaxRule) -> Relaxation:
    """Make the relaxation that the options select.

    Raises:
        ValueError: top_k is out of range, or argmax is given without top_k.
    """
    if top_k is not None:
        return LargestNoise(num_states, top_k, argmax)
    if argmax != "exact":
        raise ValueError(f"argmax {argmax} needs top_k; give top_k, for example 2, or argmax exact")
    return DenseNoise(num_states)
