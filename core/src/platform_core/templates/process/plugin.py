"""Registration of the part that this package adds."""

from collections.abc import Iterable

from platform_core.component import Component
from platform_core.hookspecs import hookimpl


@hookimpl
def platform_processes() -> Iterable[Component]:
    """The processes of this package, by name and import path, with default parts of other roles."""
    return [
        Component(
            "new-part",
            "platform_core.templates.process.process:NewPart",
            "noise replaces tokens by random ones, small ids more often",
            defaults={
                "parameterization": "mean",
                "schedule": "log-linear",
                "objective": "nelbo",
                "sampler": "ancestral",
                "backbone": "dit",
            },
        )
    ]
