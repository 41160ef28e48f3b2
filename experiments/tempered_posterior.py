"""A sampler to compare with: temperature on the law of the next noisy token, for each step.

    platform -p experiments/tempered_posterior.py eval RUN --judge runs/ar \
        --sampler tempered-posterior --sweep sampler.heat=.6,.8,1

Under uniform noise every token of a text may be a wrong one. The samplers of the platform therefore
sharpen what the network says of the clean token, and leave the noise as it is. A temperature on the
whole law of the next token freezes tokens where they are: the law of a token that stays is already
near 1 at small steps.
"""

from collections.abc import Iterable, Mapping
from typing import ClassVar

from platform_core import categorical
from platform_core.component import Component
from platform_core.hookspecs import hookimpl
from platform_core.parameterization import PredictsClean
from platform_core.process import Diffusion
from platform_core.rows import Places
from platform_core.sampler import Ending, GridSampler, Walk
from platform_core.types import Noise, Tokens
from platform_guidance.sampler import posterior


class TemperedPosterior(GridSampler):
    """Draws every next token from its law to the power 1 / heat.

    Args:
        steps: reverse steps; each is one network evaluation.
        heat: the temperature; 1 is the sampler ancestral.
        final: as of `GridSampler`.
    """

    requires: ClassVar[Mapping[str, type]] = {
        "process": Diffusion,
        "parameterization": PredictsClean,
    }
    unclaimed: ClassVar[Mapping[str, str]] = {"draws-the-data": "heat below 1 prefers likely steps"}

    def __init__(self, steps: int = 128, heat: float = 1.0, final: Ending = "ancestral") -> None:
        if not heat > 0:
            raise ValueError(f"heat is {heat:g}; it must be above 0")
        super().__init__(steps, final)
        self.heat = heat

    def step(self, walk: Walk, x_t: Tokens, alpha_s: Noise, alpha_t: Noise) -> Tokens:
        selected = walk.denoiser.process.changeable(x_t) & ~walk.fixed
        places = Places.of(selected)
        if not len(places):
            return x_t
        law = posterior(walk, x_t, selected, alpha_s, alpha_t)
        tempered = (law.log() / self.heat).softmax(-1)
        return places.spread(categorical.draw(tempered, walk.generator), x_t)


@hookimpl
def platform_samplers() -> Iterable[Component]:
    """The sampler of this file."""
    where = f"{__name__}:TemperedPosterior"
    return [Component("tempered-posterior", where, "temperature on the law of each next token")]
