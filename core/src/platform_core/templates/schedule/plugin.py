"""Registration of the part that this package adds."""

from collections.abc import Iterable

from platform_core.component import Component
from platform_core.hookspecs import hookimpl


@hookimpl
def platform_schedules() -> Iterable[Component]:
    """The schedules of this package, by name and import path."""
    return [
        Component(
            "new-part",
            "platform_core.templates.schedule.schedule:NewPart",
            "alpha = (1 - t)^power",
        )
    ]
