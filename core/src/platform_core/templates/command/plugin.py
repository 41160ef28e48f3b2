"""The command that this package adds."""

from collections.abc import Iterable

from platform_core.component import Component
from platform_core.hookspecs import hookimpl


@hookimpl
def platform_commands() -> Iterable[Component]:
    """One verb."""
    return [
        Component(
            "new-part",
            "platform_core.templates.command.command:main",
            "how many weights a run has, by module",
        )
    ]
