"""The part that this package adds."""

from collections.abc import Iterable

from platform_core.component import Component
from platform_core.hookspecs import hookimpl


@hookimpl
def platform_schedules() -> Iterable[Component]:
    """One schedule."""
    return [
        Component(
            "new-part",
            "platform_core.templates.schedule.schedule:NewPart",
            "alpha = (1 - t)^power",
        )
    ]
