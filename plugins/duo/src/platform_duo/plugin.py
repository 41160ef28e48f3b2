"""DUO's parts."""

from collections.abc import Iterable

from platform_core.component import Component
from platform_core.hookspecs import hookimpl


@hookimpl
def platform_processes() -> Iterable[Component]:
    """The family's process, which carries its defaults."""
    return [
        Component(
            "duo",
            "platform_duo.process:Duo",
            "uniform noise, as the argmax of a Gaussian diffusion",
            defaults={
                "parameterization": "mean",
                "schedule": "log-linear",
                "objective": "uniform-nelbo",
                "sampler": "ancestral",
                "backbone": "dit",
            },
        )
    ]


@hookimpl
def platform_schedules() -> Iterable[Component]:
    """The Gaussian diffusion behind uniform noise."""
    return [
        Component(
            "gaussian",
            "platform_duo.schedule:Gaussian",
            "a Gaussian diffusion seen through its argmax",
        )
    ]


@hookimpl
def platform_objectives() -> Iterable[Component]:
    """The closed form of the bound, the curriculum, and the distillation of what they trained."""
    return [
        Component(
            "curriculum",
            "platform_duo.curriculum:Curriculum",
            "softened tokens first, then the bound of uniform noise",
        ),
        Component(
            "uniform-nelbo",
            "platform_duo.objective:UniformNelbo",
            "the bound of uniform noise, in closed form",
        ),
        Component(
            "discrete-consistency",
            "platform_duo.objective:DiscreteConsistency",
            "distillation: a student says at more noise what its teacher says at less",
        ),
    ]


@hookimpl
def platform_samplers() -> Iterable[Component]:
    """Psi-samplers, for uniform noise and masks."""
    return [
        Component(
            "psi",
            "platform_duo.sampler:Psi",
            "tokens are drawn again on the way, under any noise",
        )
    ]
