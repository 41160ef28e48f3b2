"""D3PM's parts."""

from collections.abc import Iterable

from platform_core.component import Component
from platform_core.hookspecs import hookimpl


@hookimpl
def platform_processes() -> Iterable[Component]:
    """The family's process, which carries its defaults."""
    return [
        Component(
            "d3pm",
            "platform_d3pm.process:D3pm",
            "masks or uniform noise, with a network that is told the noise level",
            defaults={
                "parameterization": "mean",
                "schedule": "log-linear",
                "objective": "discrete-nelbo",
                "sampler": "ancestral",
                "backbone": "dit",
            },
            forms={
                "states absorbing": "platform_d3pm.process:AbsorbingD3pm",
                "states uniform": "platform_d3pm.process:UniformD3pm",
            },
        )
    ]


@hookimpl
def platform_objectives() -> Iterable[Component]:
    """The bound of T steps."""
    return [
        Component(
            "discrete-nelbo",
            "platform_d3pm.objective:DiscreteNelbo",
            "the bound of T steps: divergences between posteriors",
        )
    ]
