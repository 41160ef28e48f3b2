"""Registration of the part that this package adds."""

from collections.abc import Iterable

from platform_core.component import Component
from platform_core.hookspecs import hookimpl


@hookimpl
def platform_objectives() -> Iterable[Component]:
    """The objectives of this package, by name and import path."""
    return [
        Component(
            "new-part",
            "platform_core.templates.objective.objective:NewPart",
            "the bound; training gives less weight to almost clean text",
        )
    ]
