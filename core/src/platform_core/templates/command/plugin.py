"""Registration of the command that this package adds."""

from collections.abc import Iterable

from platform_core.component import Component
from platform_core.hookspecs import hookimpl


@hookimpl
def platform_commands() -> Iterable[Component]:
    """The verbs of this package, by name and import path."""
    return [
        Component(
            "new-part",
            "platform_core.templates.command.command:main",
            "count the weights of a run by module",
        )
    ]
