"""Samplers: ways to draw text, from noise alone or around a prompt.

    x_1 ~ prior;  x_s ~ q(x_s | x_t, prediction(x_t)) along a falling grid of times;  then one last
    call that removes noise

A sampler is built from its options and called with a model and the generator of all draws. Samplers
on a grid of noise levels derive from `GridSampler`, which implements the walk, and define a step.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar, final

import torch
from jaxtyping import Int
from torch import Tensor

from platform_core.categorical import CleanOnly, Truncation, truncation
from platform_core.correction import Corrected, Correction, correction
from platform_core.model import Denoiser, Model
from platform_core.parameterization import ScoreBased
from platform_core.process import Diffusion
from platform_core.schedule import MOST_STEPS, Schedule
from platform_core.types import Noise, Selected, Tokens

LAST_TIME = 1e-5
"""Last time of the grid, before the last call; the published samplers end there too."""


Ending = Literal["ancestral", "greedy", "none"]
"""How to treat the noise that is left at the end of the grid; see `GridSampler`."""


Counts = Int[Tensor, " batch"]


OfWalk = TypeVar("OfWalk", bound="Walk")

Rows = Int[Tensor, " batch"]

Steer = Callable[["Walk", Tokens, Noise], Rows | None]
"""Called after each step of a walk with the tokens and their signal level, `[1, 1]`. It returns the
number of the text of the batch that takes the place of each; None where all stay.
"""


class Prompt(NamedTuple):
    """Given tokens, around which a sampler fills in the other positions."""

    tokens: Tokens
    """`[batch, length]`; read only where `fixed`."""
    fixed: Selected
    """`[batch, length]`; these positions keep their tokens at every step."""


class Sample(NamedTuple):
    """Drawn tokens, and the number of network evaluations that they took."""

    tokens: Tokens
    nfe: int
    """Network evaluations of the whole batch; a step in which nothing can change takes none."""
    each: Counts | None = None
    """Network evaluations of each text, `[batch]`, of a sampler that leaves out finished texts."""


class Sampler(ABC):
    """A way to draw text from a model.

    `fills_blanks` says whether a prompt may fix tokens to the right of tokens that are drawn.
    """

    requires: ClassVar[Mapping[str, type]] = {}
    fills_blanks: bool = True

    @abstractmethod
    def __call__(
        self,
        model: Model,
        shape: tuple[int, int],
        generator: torch.Generator,
        prompt: Prompt | None = None,
    ) -> Sample:
        """Draw tokens of shape `(batch, length)`, on the generator's device; the tokens of the
        prompt keep their places.
        """


@dataclass
class Walk:
    """State of one sampler call, from noise to text, which its steps and its last call share.

    Args:
        denoiser: the model, which counts its network evaluations.
        truncation: truncation of every law before a draw.
        generator: generator of every draw.
        fixed: positions of the prompt, `[batch, length]`.
        noise: tokens at the beginning of the walk: pure noise around the prompt.
        number: number of grid steps taken so far.
        memory: data that a sampler's steps pass on to later steps; None before the first step. A
            named tuple holds tensors of the texts, `[batch, ...]`, which stay with their texts;
            anything else is of the whole walk.
        steer: chooses among the texts after each step; None leaves all as they are.
    """

    denoiser: Denoiser
    truncation: Truncation
    generator: torch.Generator
    fixed: Selected
    noise: Tokens
    number: int = 0
    memory: object = None
    steer: Steer | None = None

    @classmethod
    def begin(
        cls: type[OfWalk],
        model: Model,
        truncation: Truncation,
        *,
        shape: tuple[int, int],
        generator: torch.Generator,
        prompt: Prompt | None,
    ) -> OfWalk:
        """Begin a walk to text of the given shape `(batch, length)`."""
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
        """A draw from the posterior of clean text, masks excluded."""
        vocab_size = self.denoiser.process.vocab_size
        on_vocabulary = replace(self, truncation=CleanOnly(vocab_size, self.truncation))
        return on_vocabulary.step(x_t, torch.ones_like(alpha_t), alpha_t)

    def correct(self, x_t: Tokens, alpha: Noise, how: Correction) -> Tokens:
        """Draw some tokens again at signal level alpha, `[1, 1]`."""
        return how(
            self.denoiser,
            x_t,
            alpha.expand(len(x_t), 1),
            ~self.fixed,
            truncation=self.truncation,
            generator=self.generator,
        )

    def steered(self, x_t: Tokens, alpha: Noise) -> Tokens:
        """The tokens after `steer` has chosen among the texts; memory follows its text."""
        rows = None if self.steer is None else self.steer(self, x_t, alpha)
        if rows is None:
            return x_t
        self.fixed = self.fixed[rows]
        if isinstance(self.memory, tuple):
            self.memory = type(self.memory)(*(values[rows] for values in self.memory))
        return x_t[rows]

    def end(self, x_0: Tokens) -> Sample:
        """The sample: the drawn tokens, with the number of network evaluations."""
        return Sample(x_0, self.denoiser.calls)


class GridSampler(Sampler):
    """A walk from noise to text along a falling grid of noise levels, and a last call.

    Subclasses define `step`; some also override `alphas`, the signal levels of the grid.

    Args:
        steps: reverse steps; the network is called at most once for each, and once more at the end
            unless final is none.
        final: what the last call does with the noise that is left. ancestral: draws from the
            posterior of clean text. greedy: takes the most likely clean token (greedy-tail
            decoding: fewer odd tokens, less variety). none: nothing.
        corrections: after each step, draw some tokens again given all others, at the same noise
            level, in so many network evaluations each time (they correct mistakes of tokens that
            were drawn at once); 0 does not.
        redrawn: how many tokens of each text a correction draws again; 1 is exact, more are drawn
            as if they did not depend on each other.
        corrected: which tokens. random: those at random positions (Gibbs steps, which keep the law
            of exact predictions). least-likely: of `considered` tokens at random positions, the
            least likely given the others (which prefers likely texts).
        considered: how many tokens of each text `least-likely` chooses among.
        law: options of every draw at every step: temperature, top_k, top_p, min_p and crossing of
            `platform_core.categorical.truncation`. They apply to the predicted law of the clean
            token, not to that of the next noisy one.

    Raises:
        ValueError: an option is out of range.
    """

    requires: ClassVar[Mapping[str, type]] = {"process": Diffusion, "parameterization": ScoreBased}

    def __init__(
        self,
        steps: int = 128,
        final: Ending = "ancestral",
        corrections: int = 0,
        redrawn: int = 1,
        corrected: Corrected = "random",
        considered: int = 8,
        **law: Any,
    ) -> None:
        if steps < 1:
            raise ValueError(f"steps is {steps}; a sampler takes at least 1")
        if steps > MOST_STEPS:
            raise ValueError(f"steps is {steps}; a sampler takes at most {MOST_STEPS}")
        if corrections < 0 or redrawn < 1:
            raise ValueError(
                f"corrections is {corrections} and redrawn {redrawn}; corrections must be at least "
                "0 (none) and redrawn at least 1"
            )
        self.steps, self.corrections = steps, corrections
        self.correction = correction(corrected, redrawn, considered)
        self.finish = finish(final)
        self.truncation = truncation(**law)

    @abstractmethod
    def step(self, walk: Walk, x_t: Tokens, alpha_s: Noise, alpha_t: Noise) -> Tokens:
        """Draw the tokens at signal level alpha_s given those at alpha_t; both levels are `[1, 1]`.

        Positions where `walk.fixed` is true must keep their tokens. `walk.number` is the index of
        this step on the grid, from 0.
        """

    def alphas(self, schedule: Schedule, device: torch.device) -> Noise:
        """Signal levels of the grid, `[steps + 1, 1, 1]`; by default at evenly spaced times."""
        return schedule.alpha(even_times(self.steps, device))

    def __call__(
        self,
        model: Model,
        shape: tuple[int, int],
        generator: torch.Generator,
        prompt: Prompt | None = None,
    ) -> Sample:
        """Walk from noise to text in `steps` steps and a last call."""
        return self.along(self.begin(model, shape, generator, prompt))

    def begin(
        self,
        model: Model,
        shape: tuple[int, int],
        generator: torch.Generator,
        prompt: Prompt | None = None,
    ) -> Walk:
        """A walk that has not taken a step; a sampler may begin one of a class of its own."""
        return Walk.begin(model, self.truncation, shape=shape, generator=generator, prompt=prompt)

    def along(self, walk: Walk) -> Sample:
        """Take all steps of a walk that has just begun, and the last call."""
        alphas = self.alphas(walk.denoiser.schedule, walk.generator.device)
        x_t = walk.noise
        for number, (alpha_t, alpha_s) in enumerate(pairwise(alphas)):
            walk.number = number
            x_t = self.step(walk, x_t, alpha_s, alpha_t)
            for _ in range(self.corrections):
                x_t = walk.correct(x_t, alpha_s, self.correction)
            x_t = walk.steered(x_t, alpha_s)
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
        return walk.step(x_t, alpha_s, alpha_t)


def even_times(steps: int, device: torch.device) -> Noise:
    """`steps + 1` evenly spaced times from 1 to `LAST_TIME`.

    The shape is `[steps + 1, 1, 1]`, so that each time broadcasts against a batch.
    """
    return torch.linspace(1, LAST_TIME, steps + 1, dtype=torch.float64, device=device).view(
        -1, 1, 1
    )


class Finish(ABC):
    """A way to treat the little noise that is left at the end of the grid."""

    @abstractmethod
    def __call__(self, walk: Walk, x_t: Tokens, alpha_t: Noise) -> Tokens:
        """The final tokens, from the tokens x_t at the last signal level alpha_t of the grid."""


@final
class AncestralFinish(Finish):
    """A draw from the posterior of clean text, alpha_s = 1, masks excluded."""

    def __call__(self, walk: Walk, x_t: Tokens, alpha_t: Noise) -> Tokens:
        return walk.clean(x_t, alpha_t)


@final
class GreedyFinish(Finish):
    """The most likely clean token of the network's prediction, not of the posterior.

    For uniform noise the two differ: at the end of the grid the posterior's mode is the noisy token
    itself.
    """

    def __call__(self, walk: Walk, x_t: Tokens, alpha_t: Noise) -> Tokens:
        return walk.denoiser.most_likely(x_t, alpha_t, fixed=walk.fixed)


@final
class NoFinish(Finish):
    """Leaves the tokens as they are; under absorbing noise, masks may be left among them."""

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
