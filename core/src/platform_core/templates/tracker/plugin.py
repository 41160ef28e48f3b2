"""Registration of the part that this package adds."""

from collections.abc import Iterable

from platform_core.component import Component
from platform_core.hookspecs import hookimpl


@hookimpl
def platform_trackers() -> Iterable[Component]:
    """The trackers of this package, by name and import path."""
    return [
        Component(
            "new-part",
            "platform_core.templates.tracker.tracker:NewPart",
            "numbers as a table in a file of the run directory",
        )
    ]
