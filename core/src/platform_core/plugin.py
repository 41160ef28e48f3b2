"""Core's own parts, registered the way every plugin's are."""

from collections.abc import Iterable

from platform_core.component import Component
from platform_core.hookspecs import hookimpl

GENERIC = {
    "parameterization": "mean",
    "schedule": "log-linear",
    "objective": "nelbo",
    "sampler": "ancestral",
    "backbone": "dit",
}


@hookimpl
def platform_processes() -> Iterable[Component]:
    """Noise by a mask, and noise by other tokens."""
    return [
        Component(
            "absorbing",
            "platform_core.process:Absorbing",
            "noise hides tokens behind a mask",
            defaults=GENERIC,
        ),
        Component(
            "uniform",
            "platform_core.process:Uniform",
            "noise replaces tokens by any of the vocabulary",
            defaults=GENERIC,
        ),
    ]


@hookimpl
def platform_schedules() -> Iterable[Component]:
    """Three curves."""
    return [
        Component("log-linear", "platform_core.schedule:LogLinear", "alpha falls in a line"),
        Component("cosine", "platform_core.schedule:Cosine", "alpha falls slowly at the noisy end"),
        Component("polynomial", "platform_core.schedule:Polynomial", "alpha = 1 - t^exponent"),
    ]


@hookimpl
def platform_parameterizations() -> Iterable[Component]:
    """The law of the clean token."""
    return [
        Component(
            "mean", "platform_core.parameterization:Mean", "logits give the law of the clean token"
        )
    ]


@hookimpl
def platform_objectives() -> Iterable[Component]:
    """The bound that every diffusion has."""
    return [
        Component(
            "nelbo", "platform_core.objective:Nelbo", "the bound of any process, from scores alone"
        )
    ]


@hookimpl
def platform_samplers() -> Iterable[Component]:
    """The reverse process itself."""
    return [
        Component(
            "ancestral", "platform_core.sampler:Ancestral", "the reverse process on a grid of times"
        )
    ]
