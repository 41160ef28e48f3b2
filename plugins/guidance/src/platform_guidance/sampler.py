"""Samplers by a reward: the best of several texts, and steps that are guided token by token.

    best-of    the text of the largest reward among n
    d-cbg      p(x_s^l = a | x_t) exp( gamma r(x_t with a at l) ) / Z at every position l

With the reward `label`, exp r is p(label | text) and `d-cbg` is classifier guidance.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

import torch

from platform_core import categorical
from platform_core.model import Model, above_noise
from platform_core.parameterization import PredictsClean, ScoreBased
from platform_core.process import Diffusion
from platform_core.reward import Graded, Reward
from platform_core.rows import Places
from platform_core.sampler import GridSampler, Prompt, Sample, Sampler, Walk
from platform_core.types import Logits, Noise, Probs, Selected, Tokens


@final
class BestOf(Sampler):
    """Draws several texts by another sampler, and keeps that of the largest reward.

    Of equal ones the first is kept. A text counts the network evaluations of all its candidates,
    and those of the reward.

    Args:
        inner: the sampler of the candidates.
        reward: what a text is worth.
        n: candidates for each text; 1 draws as the other sampler does.

    Raises:
        ValueError: n is below 1.
    """

    unclaimed: ClassVar[Mapping[str, str]] = {
        "draws-the-data": "it prefers texts of large reward",
        "conditions-on-a-prompt": "it prefers texts of large reward",
    }

    def __init__(self, inner: Sampler, reward: Reward, n: int = 4) -> None:
        if n < 1:
            raise ValueError(f"n is {n}; it must be at least 1 (which draws as without a reward)")
        self.inner, self.reward, self.n = inner, reward, n
        self.fills_blanks = inner.fills_blanks

    @torch.no_grad()
    def __call__(
        self,
        model: Model,
        shape: tuple[int, int],
        generator: torch.Generator,
        prompt: Prompt | None = None,
    ) -> Sample:
        """Draw all candidates, one of each text at a time, and keep the best."""
        self.reward.prepare(model)
        begun = self.reward.calls
        if self.n > 1:  # a watcher would see the steps of other texts than the one kept
            model = model.watched(None)
        drawn = [self.inner(model, shape, generator, prompt) for _ in range(self.n)]
        values = torch.stack([self.reward(candidate.tokens) for candidate in drawn])
        best = (values == values.amax(0)).long().argmax(0)
        texts = torch.stack([candidate.tokens for candidate in drawn])
        spent = self.reward.calls - begun
        each = None
        if any(candidate.each is not None for candidate in drawn):
            own = [torch.full_like(best, c.nfe) if c.each is None else c.each for c in drawn]
            each = torch.stack(own).sum(0) + spent
        nfe = sum(candidate.nfe for candidate in drawn) + spent
        return Sample(texts[best, torch.arange(len(best), device=best.device)], nfe, each)


@dataclass
class Guided(Walk):
    """A walk whose draws are tilted by a graded reward.

    Args:
        reward: the reward.
        gamma: its weight.
        spent: network evaluations of the reward before the walk.
    """

    reward: Graded | None = None
    gamma: float = 0.0
    spent: int = 0

    def step(self, x_t: Tokens, alpha_s: Noise, alpha_t: Noise) -> Tokens:
        """A draw from the posterior, tilted at each position."""
        if self.gamma == 0:
            return super().step(x_t, alpha_s, alpha_t)
        selected = self.denoiser.process.changeable(x_t) & ~self.fixed
        places = Places.of(selected)
        if not len(places):
            return x_t
        law = self.law(x_t, selected, alpha_s, alpha_t)
        return places.spread(categorical.draw(law, self.generator), x_t)

    def law(self, x_t: Tokens, selected: Selected, alpha_s: Noise, alpha_t: Noise) -> Probs:
        """The law of the earlier token at the selected positions, `[rows, states]`."""
        assert self.reward is not None, "see ClassifierGuided.begin"
        plain = posterior(self, x_t, selected, alpha_s, alpha_t)
        gains = self.reward.gains(x_t, selected, alpha_s, alpha_t)
        return (plain.log() + self.gamma * gains).softmax(-1)

    def end(self, x_0: Tokens) -> Sample:
        """The sample, with the network evaluations of the reward among its own."""
        assert self.reward is not None, "see ClassifierGuided.begin"
        return Sample(x_0, self.denoiser.calls + self.reward.calls - self.spent)


def posterior(walk: Walk, x_t: Tokens, selected: Selected, alpha_s: Noise, alpha_t: Noise) -> Probs:
    """The model's law of the earlier token at the selected positions, `[rows, states]`, float64."""
    process, parameterization = walk.denoiser.process, walk.denoiser.parameterization
    if not isinstance(parameterization, PredictsClean):
        alpha_s, alpha_t = above_noise(alpha_s), above_noise(alpha_t)

    def read(logits: Logits, x: Tokens, s: Noise, t: Noise) -> Probs:
        logits = logits.double()
        if isinstance(parameterization, PredictsClean):
            law = walk.truncation(parameterization.log_x0(logits, x, t, process))
            return process.posterior(law, x, s, t)
        score = parameterization.sharpened_score(
            logits, x, t, process=process, truncation=walk.truncation
        )
        return process.reverse(score, x, s, t)

    return walk.denoiser.read(x_t, alpha_t.expand(len(x_t), 1), selected, read, (alpha_s, alpha_t))


@final
class ClassifierGuided(GridSampler):
    """Walks the reverse process from noise to text, each step guided by a graded reward: D-CBG.

        p(x_s^l = a | x_t) exp( gamma r(x_t with a at l) ) / Z

    With the reward `label`, exp r is p(label | text): the published guidance, whose every position
    is evaluated exactly. Another run than the one that draws may be the classifier; if it is the
    same, gamma 1 draws as the run does with the label.

    Args:
        reward: what single tokens of a noisy text are worth: a graded reward, such as label.
        gamma: weight of the reward; 0 draws as the sampler ancestral does.
        steps: reverse steps; each is one network evaluation, and those of the reward.
        final: what the last call does with the noise that is left. ancestral: draws from the
            guided posterior of clean text. none: nothing.
        law: options of every draw, before the reward is added; see
            `platform_core.categorical.truncation`.

    Raises:
        ValueError: the reward is not graded, or an option is out of range.

    Source: D-CBG, arXiv:2412.10193, which reads a classifier of its own at all neighbours of x_t,
    or a first-order approximation of it.
    """

    requires: ClassVar[Mapping[str, type]] = {"process": Diffusion, "parameterization": ScoreBased}
    unclaimed: ClassVar[Mapping[str, str]] = {
        "draws-the-data": "it prefers texts of large reward",
        "conditions-on-a-prompt": "it prefers texts of large reward",
    }

    def __init__(
        self,
        reward: Reward,
        gamma: float = 1.0,
        steps: int = 128,
        final: Literal["ancestral", "none"] = "ancestral",
        **law: Any,
    ) -> None:
        if not isinstance(reward, Graded):
            raise ValueError(
                f"reward is {type(reward).__name__}, which values whole texts only; choose a "
                "graded one, such as label, or the sampler best-of or particles"
            )
        if not math.isfinite(gamma):
            raise ValueError(f"gamma is {gamma}; it must be a finite number (0 does not guide)")
        self.reward, self.gamma = reward, gamma
        super().__init__(steps, final, 0, 1, "random", 1, **law)

    def begin(
        self,
        model: Model,
        shape: tuple[int, int],
        generator: torch.Generator,
        prompt: Prompt | None = None,
    ) -> Walk:
        """A walk whose draws are guided."""
        self.reward.prepare_gains(model)
        walk = Guided.begin(model, self.truncation, shape=shape, generator=generator, prompt=prompt)
        walk.reward, walk.gamma, walk.spent = self.reward, self.gamma, self.reward.calls
        return walk

    def step(self, walk: Walk, x_t: Tokens, alpha_s: Noise, alpha_t: Noise) -> Tokens:
        return walk.step(x_t, alpha_s, alpha_t)
