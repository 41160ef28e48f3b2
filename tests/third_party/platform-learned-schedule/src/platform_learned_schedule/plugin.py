"""The process of this package."""

from collections.abc import Iterable

from platform_core.component import Component
from platform_core.hookspecs import hookimpl


@hookimpl
def platform_processes() -> Iterable[Component]:
    """Masks that come sooner for some token values and later for others, as training finds best."""
    return [
        Component(
            "by-value",
            "platform_learned_schedule.process:ByValue",
            "masks, with a learned schedule for each token value",
            defaults={
                "parameterization": "subs",
                "schedule": "log-linear",
                "objective": "nelbo",
                "sampler": "ancestral",
                "backbone": "dit",
            },
        )
    ]
