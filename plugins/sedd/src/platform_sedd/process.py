"""SEDD's process: masks or uniform noise, under the name that carries the family's defaults.

Users choose it with `--process sedd` and `--process.states`. It noises exactly as
`platform_core.process.Absorbing` or `Uniform` does; the network is always told the noise level.
"""

from typing import final

from platform_core.process import Absorbing, AbsorbingOrUniform, Uniform


class Sedd(AbsorbingOrUniform):
    """Score-entropy diffusion under its family's defaults.

    Args:
        states: absorbing (noise hides tokens behind a mask) or uniform (noise replaces them by any
            of the vocabulary).

    Source: SEDD, arXiv:2310.16834.
    """


@final
class AbsorbingSedd(Sedd, Absorbing):
    """Sedd with masks."""


@final
class UniformSedd(Sedd, Uniform):
    """Sedd with uniform noise."""
