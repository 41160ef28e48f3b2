"""Registration of the callback that this package adds."""

from collections.abc import Iterable

from platform_core.component import Component
from platform_core.hookspecs import hookimpl


@hookimpl
def platform_callbacks() -> Iterable[Component]:
    """The callbacks of this package, by name and import path."""
    return [
        Component(
            "new-part",
            "platform_core.templates.callback.callback:NewPart",
            "ends a training that takes too long",
        )
    ]
