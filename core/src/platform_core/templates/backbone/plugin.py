"""The part that this package adds."""

from collections.abc import Iterable

from platform_core.component import Component
from platform_core.hookspecs import hookimpl


@hookimpl
def platform_backbones() -> Iterable[Component]:
    """One backbone."""
    return [
        Component(
            "new-part",
            "platform_core.templates.backbone.backbone:NewPart",
            "a small transformer that is told the noise level once",
        )
    ]
