"""SEDD's process: masks or uniform noise, with the default parts of the SEDD family.

Users choose it with `--process sedd` and `--process.states`. It noises exactly as
`platform_core.process.Absorbing` or `Uniform` does; the network is always told the noise level.
"""

from typing import final

from platform_core.process import Absorbing, AbsorbingOrUniform, Uniform


class Sedd(AbsorbingOrUniform):
    """Score-entropy diffusion with the default parts of the SEDD family.

    Args:
        states: absorbing (noise hides tokens behind a mask) or uniform (noise replaces them by any
            of the vocabulary).

    Source: SEDD, arXiv:2310.16834.
    """


@final
class AbsorbingSedd(Sedd, Absorbing):
    """SEDD's process with masks."""


@final
class UniformSedd(Sedd, Uniform):
    """SEDD's process with uniform noise."""
