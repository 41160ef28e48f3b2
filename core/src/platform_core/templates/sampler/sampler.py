"""The sampler: how text is drawn.

    x_1 ~ prior;  x_s ~ q(x_s | x_t, prediction(x_t)) along a falling grid of times;  then one last
    call that removes noise

`Walk` has the reverse step, the prompt and the count of network evaluations; a sampler says at
which signal levels to stop.
"""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import ClassVar, final

import torch

from platform_core.categorical import truncation
from platform_core.model import Model
from platform_core.parameterization import ScoreBased
from platform_core.process import Diffusion
from platform_core.sampler import (
    Ending,
    Prompt,
    Sample,
    Sampler,
    Walk,
    at_least_one,
    even_times,
    finish,
)


@final
class NewPart(Sampler):
    """Walks the reverse process on a grid of times that is finer where text is almost clean.

    Args:
        steps: reverse steps; the network is called at most once for each, and once more at the end
            unless final is none.
        bend: times are even times to this power; 1 is the sampler ancestral. Above 0.
        final: what the last call does with the noise that is left: ancestral, greedy or none.
        top_p: at each step, draw only from the most likely tokens with this much probability; 1 is
            exact.

    Raises:
        ValueError: an option is out of range.
    """

    requires: ClassVar[Mapping[str, type]] = {"process": Diffusion, "parameterization": ScoreBased}

    def __init__(
        self,
        steps: int = 128,
        bend: float = 1.5,
        final: Ending = "ancestral",
        top_p: float = 1.0,
    ) -> None:
        if not 0 < bend < math.inf:
            raise ValueError(f"bend is {bend:g}; it must be above 0; 1 is an even grid")
        self.steps, self.bend = at_least_one(steps), bend
        self.finish = finish(final)
        self.truncation = truncation(top_p)

    def __call__(
        self,
        model: Model,
        shape: tuple[int, int],
        generator: torch.Generator,
        prompt: Prompt | None = None,
    ) -> Sample:
        """Noise to text in `steps` reverse steps."""
        walk = Walk.begin(model, self.truncation, shape=shape, generator=generator, prompt=prompt)
        alphas = model.schedule.alpha(even_times(self.steps, generator.device) ** self.bend)
        x_t = walk.noise
        for alpha_t, alpha_s in pairwise(alphas):
            x_t = walk.step(x_t, alpha_s, alpha_t)
        return walk.end(self.finish(walk, x_t, alphas[-1]))
