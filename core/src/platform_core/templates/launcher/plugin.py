"""Registration of the launcher that this package adds."""

from collections.abc import Iterable

from platform_core.component import Component
from platform_core.hookspecs import hookimpl


@hookimpl
def platform_launchers() -> Iterable[Component]:
    """The launchers of this package, by name and import path."""
    return [
        Component(
            "new-part",
            "platform_core.templates.launcher.launcher:open_launcher",
            "trials one after another, shortest name first",
        )
    ]
