"""Parts of the SEDD family: process, schedule, parameterization, objective and samplers."""

from collections.abc import Iterable

from platform_core.component import Component
from platform_core.hookspecs import hookimpl


@hookimpl
def platform_processes() -> Iterable[Component]:
    """The process `sedd`, with the default parts of the family."""
    return [
        Component(
            "sedd",
            "platform_sedd.process:Sedd",
            "masks or uniform noise, with a network that predicts scores",
            defaults={
                "parameterization": "score",
                "schedule": "log-linear",
                "objective": "nelbo",
                "sampler": "analytic",
                "backbone": "dit",
            },
            forms={
                "states absorbing": "platform_sedd.process:AbsorbingSedd",
                "states uniform": "platform_sedd.process:UniformSedd",
            },
        )
    ]


@hookimpl
def platform_schedules() -> Iterable[Component]:
    """The schedule of the paper's models with uniform noise."""
    return [
        Component(
            "geometric",
            "platform_sedd.schedule:Geometric",
            "-log alpha grows by the same factor in equal times",
        )
    ]


@hookimpl
def platform_parameterizations() -> Iterable[Component]:
    """The parameterization of networks that predict scores."""
    return [
        Component(
            "score",
            "platform_sedd.parameterization:Score",
            "logits give the score, scaled by the noise level",
        )
    ]


@hookimpl
def platform_objectives() -> Iterable[Component]:
    """The bound of scores under masks, in closed form."""
    return [
        Component(
            "score-entropy",
            "platform_sedd.objective:ScoreEntropy",
            "the bound of scores under masks, in closed form",
        )
    ]


@hookimpl
def platform_samplers() -> Iterable[Component]:
    """Samplers whose steps are computed from the score alone."""
    return [
        Component(
            "analytic",
            "platform_sedd.sampler:Analytic",
            "the reverse process from the score (Tweedie tau-leaping)",
        ),
        Component("euler", "platform_sedd.sampler:Euler", "the reverse rates over small steps"),
    ]
