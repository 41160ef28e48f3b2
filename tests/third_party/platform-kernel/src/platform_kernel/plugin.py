"""The process of this package."""

from collections.abc import Iterable

from platform_core.component import Component
from platform_core.hookspecs import hookimpl


@hookimpl
def platform_processes() -> Iterable[Component]:
    """Noise along a graph of similar tokens, which is no mixture with a prior."""
    return [
        Component(
            "kernel",
            "platform_kernel.process:Kernel",
            "tokens become similar tokens first, and any token in the end",
            defaults={
                "parameterization": "mean",
                "schedule": "log-linear",
                "objective": "nelbo",
                "sampler": "ancestral",
                "backbone": "dit",
            },
        )
    ]
