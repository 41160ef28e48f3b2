"""Parts of the DUO family: process, schedule, parameterization, objectives and sampler."""

from collections.abc import Iterable

from platform_core.component import Component
from platform_core.hookspecs import hookimpl


@hookimpl
def platform_processes() -> Iterable[Component]:
    """The process `duo`, with the default parts of the family."""
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
            "signal level of the argmax of a Gaussian diffusion",
        )
    ]


@hookimpl
def platform_parameterizations() -> Iterable[Component]:
    """The law of the clean token given all noisy tokens."""
    return [
        Component(
            "denoiser",
            "platform_duo.parameterization:Denoising",
            "the law of the clean token given all noisy tokens, under uniform noise",
        )
    ]


@hookimpl
def platform_objectives() -> Iterable[Component]:
    """The bound in closed form, the curriculum, and distillation."""
    return [
        Component(
            "curriculum",
            "platform_duo.curriculum:Curriculum",
            "soft tokens first, then the bound of uniform noise",
        ),
        Component(
            "uniform-nelbo",
            "platform_duo.objective:UniformNelbo",
            "the bound of uniform noise, in closed form",
        ),
        Component(
            "denoising-cross-entropy",
            "platform_duo.objective:DenoisingCrossEntropy",
            "plain cross-entropy of the clean token; the bound of uniform noise in evaluation",
        ),
        Component(
            "discrete-consistency",
            "platform_duo.objective:DiscreteConsistency",
            "distillation: a student predicts at more noise what its teacher predicts at less",
        ),
    ]


@hookimpl
def platform_samplers() -> Iterable[Component]:
    """Psi-samplers, for uniform noise and masks."""
    return [
        Component(
            "psi",
            "platform_duo.sampler:Psi",
            "redraws some tokens in each step to correct mistakes, under any noise",
        )
    ]
