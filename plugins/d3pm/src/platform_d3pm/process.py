"""D3PM's process: masks or uniform noise, with the default parts of the D3PM family.

Users choose it with `--process d3pm` and `--process.states`. It noises exactly as
`platform_core.process.Absorbing` or `Uniform` does; the network is always told the noise level. The
number of steps belongs to the objective and to the sampler.
"""

from typing import final

from platform_core.process import Absorbing, AbsorbingOrUniform, Uniform


class D3pm(AbsorbingOrUniform):
    """Discrete diffusion in T steps with the default parts of the D3PM family.

    Args:
        states: absorbing (noise hides tokens behind a mask) or uniform (noise replaces them by any
            of the vocabulary).

    Source: D3PM, arXiv:2107.03006.
    """


@final
class AbsorbingD3pm(D3pm, Absorbing):
    """D3PM's process with masks."""


@final
class UniformD3pm(D3pm, Uniform):
    """D3PM's process with uniform noise."""
