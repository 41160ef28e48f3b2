"""The diffusion transformer as a backbone."""

from collections.abc import Iterable

from platform_core.component import Component
from platform_core.hookspecs import hookimpl


@hookimpl
def platform_backbones() -> Iterable[Component]:
    """The backbone `dit`."""
    return [
        Component("dit", "platform_dit.backbone:Dit", "diffusion transformer with adaptive norms")
    ]
