"""DUO's process: uniform noise, with the default parts of the DUO family.

Users choose it with `--process duo`; it noises exactly as `platform_core.process.Uniform` does.
"""

from typing import final

from platform_core.process import Uniform


@final
class Duo(Uniform):
    """Uniform-state diffusion with the default parts of the DUO family.

    Source: DUO, arXiv:2506.10892.
    """
