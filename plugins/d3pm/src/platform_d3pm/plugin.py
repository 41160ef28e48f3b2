"""Parts of the D3PM family: process and objective."""

from collections.abc import Iterable

from platform_core.component import Component
from platform_core.hookspecs import hookimpl


@hookimpl
def platform_processes() -> Iterable[Component]:
    """The process `d3pm`, with the default parts of the family."""
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
    """The objective of D3PM: the bound of T steps."""
    return [
        Component(
            "discrete-nelbo",
            "platform_d3pm.objective:DiscreteNelbo",
            "the bound of T steps: divergences between posteriors",
        )
    ]
