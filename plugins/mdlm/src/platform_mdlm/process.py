"""MDLM's process: masks, with the default parts of the MDLM family.

Users choose it with `--process mdlm`; it noises exactly as `platform_core.process.Absorbing` does.
The network is not told the noise level unless `--process.time_conditioned true` asks for it.
"""

from typing import final

from platform_core.process import Absorbing


@final
class Mdlm(Absorbing):
    """Masked diffusion with the default parts of the MDLM family.

    Args:
        time_conditioned: whether the network is told the noise level; the best prediction at a mask
            does not depend on it.

    Source: MDLM, arXiv:2406.07524.
    """
