"""DUO's process: uniform noise, under the name that carries the family's defaults.

Users choose it with `--process duo`; it noises exactly as `platform_core.process.Uniform` does.
"""

from typing import final

from platform_core.process import Uniform


@final
class Duo(Uniform):
    """Uniform-state diffusion under its family's defaults.

    Source: DUO, arXiv:2506.10892.
    """
