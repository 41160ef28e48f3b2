"""DUO's curriculum: the network first reads softened tokens, in which some of the answer is left.

    loss(step) = f(x_t, x_theta(softmax(w / tau)), alpha(t), alpha'(t); x_0)    step < end
                 f(x_t, x_theta(x_t), ...), the bound                           from then on

with w the noisy one-hot vector of `relaxation`, x_t its argmax, and alpha the operator of
`gaussian` at gamma(t), so that x_t has the law that f takes it to have.
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
    """tau of each step: log tau runs in a straight line from `start` to `end`.

    Args:
        start: tau until step `first`; above 0.
        end: tau from step `last` on; above 0.
        first: at least 0.
        last: at least `first`.

    Raises:
        ValueError: they are not.
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
        """tau of a step."""
        if step >= self.last:
            return self.end
        progress = max(0, step - self.first) / (self.last - self.first)
        return math.exp((1 - progress) * math.log(self.start) + progress * math.log(self.end))


@final
class Curriculum(UniformNelbo):
    """Training on softened tokens up to a step, and on the bound from there; the bound throughout.

    The curriculum's loss is no bound: its inputs tell more than x_t, so it is lower and its
    gradients vary less. As tau falls to 0 and gamma runs over all levels, it becomes the bound.
    What evaluation reports is the bound, of hard tokens, at every step.

    Args:
        t_min: training draws times from [t_min, 1]; the published models use 1e-3. The exact bound
            ignores it.
        end: updates of the curriculum, half of a run by default, 400 of 800; the paper's 500,000 of
            1,000,000.
        gamma_min: -log of the signal-to-noise ratio at t = 0; by default alpha is 0.95 there.
        gamma_max: the same at t = 1; by default alpha is 0.05 there. The paper's are -3.55 and
            -1.85 at 50,257 states.
        tau_start: temperature of the softmax at first; above 0.
        tau_end: temperature from `tau_until` on.
        tau_from: updates before log tau begins to change.
        tau_until: updates until it has changed; by default `end`.
        top_k: draw only so many of the largest noise coordinates, at least 2, instead of all; the
            network then averages so many embeddings. The second paper trains with 2.
        argmax: with top_k, how the noisy token is found. exact: the token of the largest
            coordinate. in-top-k: the clean one wherever it is among the top_k, as published code
            does by mistake; at 50,257 states and gamma -3 that is 68 % of the tokens with top_k 2,
            where alpha in the loss stands for 60 %.

    Source: DUO, arXiv:2506.10892, section 4.
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
        """The curriculum's noise; from `end` on, that of the bound."""
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
    """What the options ask for.

    Raises:
        ValueError: they do not go together.
    """
    if top_k is not None:
        return LargestNoise(num_states, top_k, argmax)
    if argmax != "exact":
        raise ValueError(f"argmax {argmax} needs top_k; give top_k, for example 2, or argmax exact")
    return DenseNoise(num_states)
