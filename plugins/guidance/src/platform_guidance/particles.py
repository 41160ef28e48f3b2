"""Feynman-Kac steering: several walks to each text, of which those of large reward go on.

    target      p(x) exp( strength r(x) ) / Z, in the limit of many particles
    potential   exp( strength ( r(xhat_k) - r(xhat_(k-1)) ) ) at look k; the last is the text's own

xhat_k is a draw of the clean text from the noisy one. The potentials of one walk multiply to
exp( strength r(x) ), whatever the looks in between say.
"""

import math
from collections.abc import Mapping
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from platform_core import categorical
from platform_core.model import Model
from platform_core.reward import Reward
from platform_core.sampler import GridSampler, Prompt, Rows, Sample, Sampler, Walk
from platform_core.types import Noise, Tokens

Weights = Float[Tensor, "texts particles"]


@final
class Particles(Sampler):
    """Steers the steps of another sampler by a reward: walks of little promise give way to others.

    Every text has so many particles, which walk together. At each look a clean text is drawn from
    each, and its reward changes the particle's weight. Where few particles of a text have most of
    the weight, they are drawn again by weight. At the end one particle is drawn by weight. With p
    the law of the other sampler, the law tends to p(x) exp(strength r(x)) as particles grow in
    number.

    Args:
        inner: the sampler that is steered, one on a grid of noise levels.
        reward: what a text is worth.
        particles: walks for each text; 1 draws as the other sampler does.
        strength: factor of the reward; 0 draws from the law of the other sampler.
        every: steps between two looks. A look takes one network evaluation, and those of the
            reward.
        threshold: draw the particles of a text again where their effective number is below this
            share of all; 0 never does, so that only the last draw is by weight.

    Raises:
        ValueError: an option is out of range, or the other sampler has no grid.

    Every particle counts as network evaluations of its text.
    Source: Feynman-Kac steering, arXiv:2501.06848, with its potential of differences.
    """

    unclaimed: ClassVar[Mapping[str, str]] = {
        "draws-the-data": "it prefers texts of large reward",
        "conditions-on-a-prompt": "it prefers texts of large reward",
        "counts-evaluations": "all particles of a text are read at once, and each is counted",
    }

    def __init__(
        self,
        inner: Sampler,
        reward: Reward,
        particles: int = 4,
        strength: float = 1.0,
        every: int = 8,
        threshold: float = 0.5,
    ) -> None:
        if particles < 1 or every < 1:
            raise ValueError(f"particles is {particles} and every {every}; both must be at least 1")
        if not math.isfinite(strength) or not 0 <= threshold <= 1:
            raise ValueError(
                f"strength is {strength:g} and threshold {threshold:g}; strength must be finite "
                "and threshold from 0 to 1"
            )
        if not isinstance(inner, GridSampler):
            raise ValueError(
                f"inner is {type(inner).__name__}, which has no grid of noise levels to be steered "
                "on; choose another, such as ancestral, or the sampler best-of"
            )
        self.inner, self.reward, self.particles = inner, reward, particles
        self.strength, self.every, self.threshold = strength, every, threshold
        self.fills_blanks = inner.fills_blanks

    @torch.no_grad()
    def __call__(
        self,
        model: Model,
        shape: tuple[int, int],
        generator: torch.Generator,
        prompt: Prompt | None = None,
    ) -> Sample:
        """Walk with all particles of all texts, and keep one of each text."""
        if self.particles == 1:
            return self.inner(model, shape, generator, prompt)
        self.reward.prepare(model)
        begun = self.reward.calls
        batch, length = shape
        if prompt is not None:
            prompt = Prompt(*(given.repeat_interleave(self.particles, 0) for given in prompt))
        shape = batch * self.particles, length
        # A watcher would see the steps of other texts than the ones kept.
        walk = self.inner.begin(model.watched(None), shape, generator, prompt)
        steering = Steering(self, batch, generator)
        walk.steer = steering.after_step
        drawn = self.inner.along(walk)
        chosen = steering.chosen(drawn.tokens)
        spent = drawn.nfe + self.reward.calls - begun
        return Sample(drawn.tokens[chosen], spent * self.particles)


class Steering:
    """The weights of the particles of a batch of texts.

    The particles of text b are the rows from b times their number on.

    Args:
        sampler: the options.
        batch: number of texts.
        generator: generator of every draw.
    """

    def __init__(self, sampler: Particles, batch: int, generator: torch.Generator) -> None:
        self.sampler, self.generator = sampler, generator
        self.log_weights: Weights = torch.zeros(
            batch, sampler.particles, dtype=torch.float64, device=generator.device
        )
        self.seen = torch.zeros_like(self.log_weights)
        """Strength times the reward at the last look of each."""

    def after_step(self, walk: Walk, x_t: Tokens, alpha: Noise) -> Rows | None:
        """Look where it is time; the rows that go on, or None for all."""
        if (walk.number + 1) % self.sampler.every:
            return None
        self.weigh(walk.clean(x_t, alpha))
        return self.resampled()

    def weigh(self, texts: Tokens) -> None:
        """Change the weights by the rewards of the particles' clean texts."""
        rewards = self.sampler.strength * self.sampler.reward(texts).view_as(self.seen)
        self.log_weights = self.log_weights + rewards - self.seen
        self.seen = rewards

    def resampled(self) -> Rows | None:
        """The rows that go on, after texts of too few effective particles drew theirs again."""
        number = self.sampler.particles
        weights = self.log_weights.softmax(-1)
        few = 1 / weights.square().sum(-1, keepdim=True) < self.sampler.threshold * number
        if not few.any():
            return None
        places = torch.arange(number, device=weights.device)
        # Systematic: one uniform number for each text, and even steps from there.
        uniform = torch.rand(
            few.shape, generator=self.generator, dtype=torch.float64, device=weights.device
        )
        cumulative = weights.cumsum(-1)
        asked = (places + uniform) / number * cumulative[:, -1:]
        drawn = torch.searchsorted(cumulative, asked, right=True).clamp_max(number - 1)
        kept = torch.where(few, drawn, places)
        self.seen = self.seen.gather(-1, kept)
        self.log_weights = torch.where(few, 0.0, self.log_weights)
        return self._rows(kept)

    def chosen(self, texts: Tokens) -> Rows:
        """The row of one particle of each text, drawn by weight once all texts are clean."""
        self.weigh(texts)
        weights = self.log_weights.softmax(-1)
        return self._rows(categorical.draw(weights, self.generator)[:, None])

    def _rows(self, places: Tensor) -> Rows:
        first = torch.arange(len(places), device=places.device) * self.sampler.particles
        return (first[:, None] + places).flatten()
