"""The part that this package adds."""

from collections.abc import Iterable

from platform_core.component import Component
from platform_core.hookspecs import hookimpl


@hookimpl
def platform_processes() -> Iterable[Component]:
    """One process, and what it goes with where nothing else is asked for."""
    return [
        Component(
            "new-part",
            "platform_core.templates.process.process:NewPart",
            "noise replaces tokens, by those of small ids more often",
            defaults={
                "parameterization": "mean",
                "schedule": "log-linear",
                "objective": "nelbo",
                "sampler": "ancestral",
                "backbone": "dit",
            },
        )
    ]
