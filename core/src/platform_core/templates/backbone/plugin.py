"""Registration of the part that this package adds."""

from collections.abc import Iterable

from platform_core.component import Component
from platform_core.hookspecs import hookimpl


@hookimpl
def platform_backbones() -> Iterable[Component]:
    """The backbones of this package, by name and import path."""
    return [
        Component(
            "new-part",
            "platform_core.templates.backbone.backbone:NewPart",
            "a small transformer that is told the noise level once",
        )
    ]
