"""SEDD's samplers: each step draws every token from a law that is computed from its score.

    analytic    q(x_t | x_s) q_s(x_s) / q_t(x_t), exact for each token if the score is exact
    euler       1{x_t} + dt (reverse rates), of first order in the step

Both take any score, also that of a network that predicts the clean token; `analytic` then has the
law of `ancestral`.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar, final

from platform_core import categorical
from platform_core.model import above_noise
from platform_core.parameterization import ScoreBased
from platform_core.process import Mixing
from platform_core.sampler import GridSampler, Walk, even_times
from platform_core.schedule import Schedule
from platform_core.types import Logits, LogProbs, Noise, Probs, Tokens
from platform_sedd.parameterization import truncate


class ByScore(GridSampler):
    """Samples from noise to text; each step draws tokens from a law computed from the score.

    The law is computed only for tokens that can change, in chunks and in float64.
    """

    requires: ClassVar[Mapping[str, type]] = {
        "process": Mixing,
        "parameterization": ScoreBased,
    }

    @abstractmethod
    def law(
        self,
        log_score: LogProbs,
        x_t: Tokens,
        alpha_s: Noise,
        alpha_t: Noise,
        process: Mixing,
    ) -> Probs:
        """Law of the tokens x_s after a step; rows need not sum to 1."""

    def draw(self, walk: Walk, x_t: Tokens, alpha_s: Noise, alpha_t: Noise) -> Tokens:
        """Tokens drawn from `law`; the network is not called if no token can change."""
        parameterization, process = walk.denoiser.parameterization, walk.denoiser.process
        assert isinstance(process, Mixing), "see requires"
        changing = walk.denoiser.places(process.changeable(x_t) & ~walk.fixed)
        if not len(changing):
            return x_t

        def draw(logits: Logits, x: Tokens, s: Noise, t: Noise) -> Tokens:
            scores = parameterization.log_score(logits.double(), x, t, process)
            scores = truncate(scores, x, t, process=process, truncation=walk.truncation)
            return categorical.draw(self.law(scores, x, s, t, process), walk.generator)

        levels = above_noise(alpha_s), above_noise(alpha_t)
        return changing.spread(walk.denoiser.read(x_t, levels[1], changing, draw, levels), x_t)


@final
class Analytic(ByScore):
    """Samples by the reverse process, computed from the score alone.

    If the score is exact, each token is exact in any number of steps; within a step, positions
    change independently. For a network that predicts the clean token, the law is that of
    `ancestral`.

    Args:
        final: what the last call does with the noise that is left. ancestral: draws clean text by
            one more analytic step. greedy: takes the most likely clean token. none: nothing.
        law: options of every draw, which apply to the law of the clean token that the score
            implies; see `platform_core.categorical.truncation`.

    With a prompt, the given tokens replace the noisy ones before each call, at every noise level.
    Under absorbing noise this conditions exactly; under uniform noise it is an approximation.
    Source: SEDD, arXiv:2310.16834, section 4.2 (Tweedie tau-leaping).
    """

    def step(self, walk: Walk, x_t: Tokens, alpha_s: Noise, alpha_t: Noise) -> Tokens:
        """Draw from `law` at the levels of the schedule."""
        return self.draw(walk, x_t, alpha_s, alpha_t)

    def law(
        self,
        log_score: LogProbs,
        x_t: Tokens,
        alpha_s: Noise,
        alpha_t: Noise,
        process: Mixing,
    ) -> Probs:
        """q(x_t | x_s) q_s(x_s) / q_t(x_t)."""
        return process.reverse(log_score, x_t, alpha_s, alpha_t)


@final
class Euler(ByScore):
    """Samples by Euler steps along the rates of the reverse process.

        p(x_s = y) = (t - s) rate(x_t) score[y],  y != x_t

    Probabilities that sum to more than 1 are divided by their sum. The error of a step is of second
    order in its length.

    Args:
        final: what the last call does with the noise that is left. ancestral: draws clean text from
            the posterior, not by an Euler step. greedy: takes the most likely clean token. none:
            nothing.
        law: options of every draw, which apply to the law of the clean token that the score
            implies; see `platform_core.categorical.truncation`.

    Source: SEDD, arXiv:2310.16834, section 4.2 (tau-leaping); Campbell et al. 2022,
    arXiv:2205.14987.
    """

    def step(self, walk: Walk, x_t: Tokens, alpha_s: Noise, alpha_t: Noise) -> Tokens:
        """Draw from `law`, with alpha_s on the tangent of the schedule at t."""
        t, s = even_times(self.steps, x_t.device)[walk.number : walk.number + 2]
        return self.draw(walk, x_t, tangent(walk.denoiser.schedule, s, t), alpha_t)

    def law(
        self,
        log_score: LogProbs,
        x_t: Tokens,
        alpha_s: Noise,
        alpha_t: Noise,
        process: Mixing,
    ) -> Probs:
        """Jumps at the rate of alpha_t, over the time to alpha_s along the schedule's tangent."""
        rate = process.rate(x_t, alpha_t, alpha_t - alpha_s)
        jumps = (rate[..., None] * log_score.exp()).scatter(-1, x_t[..., None], 0.0)
        stay = (1 - jumps.sum(-1, keepdim=True)).clamp_min(0)
        return jumps.scatter(-1, x_t[..., None], stay)


def tangent(schedule: Schedule, s: Noise, t: Noise) -> Noise:
    """The signal level at time s on the tangent of a schedule at time t > s."""
    return schedule.alpha(t) - schedule.slope(t) * (t - s)
