"""Samplers: how text is drawn, from noise or around a prompt.

    x_1 ~ prior;  x_s ~ q(x_s | x_t, prediction(x_t)) along a falling grid of times;  then one last
    call that removes noise

A sampler is built from its options and called with a model; every draw comes from the generator it
is handed. Samplers on a grid derive from `GridSampler`, which has the walk, and say what a step is.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar, Literal, NamedTuple, final

import torch

from platform_core.categorical import CleanOnly, Crossing, Truncation, truncation
from platform_core.model import Denoiser, Model
from platform_core.parameterization import ScoreBased
from platform_core.process import Diffusion
from platform_core.schedule import Schedule
from platform_core.types import Noise, Selected, Tokens

LAST_TIME = 1e-5
"""Where the grid of times ends, before the last call; the published samplers end there too."""


Ending = Literal["ancestral", "greedy", "none"]
"""What is done with the noise that is left at the end of the grid; see `GridSampler`."""


class Prompt(NamedTuple):
    """Tokens that are given: the sampler fills in the others around them."""

    tokens: Tokens
    """`[batch, length]`; read only where `fixed`."""
    fixed: Selected
    """`[batch, length]`; these positions keep their tokens at every step."""


class Sample(NamedTuple):
    """What was drawn and what it cost."""

    tokens: Tokens
    nfe: int
    """Network evaluations of the whole batch that were needed: none where nothing could change."""


class Sampler(ABC):
    """A way to draw text from a model.

    `fills_blanks` is whether a prompt may give tokens to the right of others that are drawn.
    """

    requires: ClassVar[Mapping[str, type]] = {}
    fills_blanks: ClassVar[bool] = True

    @abstractmethod
    def __call__(
        self,
        model: Model,
        shape: tuple[int, int],
        generator: torch.Generator,
        prompt: Prompt | None = None,
    ) -> Sample:
        """Tokens of the given `(batch, length)`, on the generator's device, with the prompt's in
        their places.
        """


@dataclass
class Walk:
    """One call of a sampler, from noise to text: what its steps and its ending share.

    Args:
        denoiser: the model, which counts how often it was asked.
        truncation: of every law that is drawn from.
        generator: of every draw.
        fixed: positions of the prompt, `[batch, length]`.
        noise: where the walk begins: pure noise around the prompt.
        number: steps of the grid that lie behind.
        memory: what a sampler's steps leave to those that follow; None before the first.
    """

    denoiser: Denoiser
    truncation: Truncation
    generator: torch.Generator
    fixed: Selected
    noise: Tokens
    number: int = 0
    memory: object = None

    @classmethod
    def begin(
        cls,
        model: Model,
        truncation: Truncation,
        *,
        shape: tuple[int, int],
        generator: torch.Generator,
        prompt: Prompt | None,
    ) -> "Walk":
        """A walk to text of the given `(batch, length)`."""
        denoiser = Denoiser(model)
        noise = denoiser.process.sample_prior(shape, generator)
        fixed = torch.zeros_like(noise, dtype=torch.bool)
        if prompt is not None:
            noise, fixed = torch.where(prompt.fixed, prompt.tokens, noise), prompt.fixed
        return cls(denoiser, truncation, generator, fixed, noise)

    def step(self, x_t: Tokens, alpha_s: Noise, alpha_t: Noise) -> Tokens:
        """A draw from the posterior of the tokens at signal level alpha_s >= alpha_t."""
        return self.denoiser.draw_reverse(
            x_t,
            alpha_s,
            alpha_t,
            truncation=self.truncation,
            generator=self.generator,
            fixed=self.fixed,
        )

    def clean(self, x_t: Tokens, alpha_t: Noise) -> Tokens:
        """The same all the way to clean text, masks left out."""
        vocab_size = self.denoiser.process.vocab_size
        on_vocabulary = replace(self, truncation=CleanOnly(vocab_size, self.truncation))
        return on_vocabulary.step(x_t, torch.ones_like(alpha_t), alpha_t)

    def end(self, x_0: Tokens) -> Sample:
        """What was drawn, and the calls that it took."""
        return Sample(x_0, self.denoiser.calls)


class GridSampler(Sampler):
    """A walk from noise to text along a falling grid of noise levels, and a last call.

    What differs between samplers is `step`, which is all that most of them say, and `alphas`, the
    levels of the grid.

    Args:
        steps: reverse steps; the network is called at most once for each, and once more at the end
            unless final is none.
        final: what the last call does with the noise that is left. ancestral: draws from the
            posterior of clean text. greedy: takes the most likely clean token (greedy-tail
            decoding: fewer odd tokens, less variety). none: nothing.
        top_p: at each step, draw only from the most likely tokens with this much probability; 1 is
            exact.
        crossing: whether the token with which top_p is exceeded is kept (as DUO and transformers
            do) or dropped (as ReMDM and BD3-LM do).

    Raises:
        ValueError: there is no step, or top_p is no probability.
    """

    requires: ClassVar[Mapping[str, type]] = {"process": Diffusion, "parameterization": ScoreBased}

    def __init__(
        self,
        steps: int = 128,
        final: Ending = "ancestral",
        top_p: float = 1.0,
        crossing: Crossing = "kept",
    ) -> None:
        if steps < 1:
            raise ValueError(f"steps is {steps}; a sampler takes at least 1")
        self.steps = steps
        self.finish = finish(final)
        self.truncation = truncation(top_p, crossing=crossing)

    @abstractmethod
    def step(self, walk: Walk, x_t: Tokens, alpha_s: Noise, alpha_t: Noise) -> Tokens:
        """The tokens at signal level alpha_s, drawn from those at alpha_t; both `[1, 1]`.

        Positions where `walk.fixed` is true must keep their tokens. `walk.number` is which step of
        the grid this is, from 0.
        """

    def alphas(self, schedule: Schedule, device: torch.device) -> Noise:
        """Signal levels that the steps go through, `[steps + 1, 1, 1]`: those of even times."""
        return schedule.alpha(even_times(self.steps, device))

    def __call__(
        self,
        model: Model,
        shape: tuple[int, int],
        generator: torch.Generator,
        prompt: Prompt | None = None,
    ) -> Sample:
        """Noise to text in `steps` steps."""
        walk = Walk.begin(model, self.truncation, shape=shape, generator=generator, prompt=prompt)
        alphas = self.alphas(model.schedule, generator.device)
        x_t = walk.noise
        for number, (alpha_t, alpha_s) in enumerate(pairwise(alphas)):
            walk.number = number
            x_t = self.step(walk, x_t, alpha_s, alpha_t)
        return walk.end(self.finish(walk, x_t, alphas[-1]))


@final
class Ancestral(GridSampler):
    """Walks the reverse process from noise to text on an even grid of times.

    With a prompt, the given tokens replace the noisy ones before each call, at every noise level.
    Under absorbing noise this conditions exactly; under uniform noise it is an approximation, since
    the network takes clean neighbours for noisy ones.
    Source: MDLM, arXiv:2406.07524, and DUO, arXiv:2506.10892, which names the greedy tail.
    """

    def step(self, walk: Walk, x_t: Tokens, alpha_s: Noise, alpha_t: Noise) -> Tokens:
        """A draw from the posterior."""
        return walk.step(x_t, alpha_s, alpha_t)


def even_times(steps: int, device: torch.device) -> Noise:
    """The `steps + 1` times that so many even steps go through, from 1 to `LAST_TIME`.

    `[steps + 1, 1, 1]`, so that each broadcasts against a batch.
    """
    return torch.linspace(1, LAST_TIME, steps + 1, dtype=torch.float64, device=device).view(
        -1, 1, 1
    )


class Finish(ABC):
    """What is done with the little noise left at the end of the grid."""

    @abstractmethod
    def __call__(self, walk: Walk, x_t: Tokens, alpha_t: Noise) -> Tokens:
        """Clean tokens."""


@final
class AncestralFinish(Finish):
    """A draw from the posterior of clean text, alpha_s = 1, masks left out."""

    def __call__(self, walk: Walk, x_t: Tokens, alpha_t: Noise) -> Tokens:
        """One reverse step all the way to clean text."""
        return walk.clean(x_t, alpha_t)


@final
class GreedyFinish(Finish):
    """The most likely clean token of the network's prediction, not of the posterior.

    For uniform noise the two differ: at the end of the grid the posterior's mode is the noisy token
    itself.
    """

    def __call__(self, walk: Walk, x_t: Tokens, alpha_t: Noise) -> Tokens:
        """The mode at each position."""
        return walk.denoiser.most_likely(x_t, alpha_t, fixed=walk.fixed)


@final
class NoFinish(Finish):
    """The tokens as they are; under absorbing noise a mask may be left among them."""

    def __call__(self, walk: Walk, x_t: Tokens, alpha_t: Noise) -> Tokens:
        return x_t


def finish(final: Ending) -> Finish:
    """The last call that a sampler's `final` option asks for."""
    return _FINISHES[final]()


_FINISHES: Mapping[Ending, type[Finish]] = {
    "ancestral": AncestralFinish,
    "greedy": GreedyFinish,
    "none": NoFinish,
}
