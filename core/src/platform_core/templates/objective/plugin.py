"""The part that this package adds."""

from collections.abc import Iterable

from platform_core.component import Component
from platform_core.hookspecs import hookimpl


@hookimpl
def platform_objectives() -> Iterable[Component]:
    """One objective."""
    return [
        Component(
            "new-part",
            "platform_core.templates.objective.objective:NewPart",
            "the bound; training has less weight on almost clean text",
        )
    ]
