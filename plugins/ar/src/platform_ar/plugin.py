"""The parts of autoregression."""

from collections.abc import Iterable

from platform_core.component import Component
from platform_core.hookspecs import hookimpl


@hookimpl
def platform_processes() -> Iterable[Component]:
    """The process `ar`, with the default parts of autoregression."""
    return [
        Component(
            "ar",
            "platform_ar.process:Ar",
            "no noise: every token given those to its left",
            defaults={
                "parameterization": "next-token",
                "schedule": "log-linear",
                "objective": "next-token",
                "sampler": "left-to-right",
                "backbone": "dit",
            },
        )
    ]


@hookimpl
def platform_parameterizations() -> Iterable[Component]:
    """The law of the next token."""
    return [
        Component(
            "next-token",
            "platform_ar.parameterization:NextToken",
            "logits give the law of the next token",
        )
    ]


@hookimpl
def platform_objectives() -> Iterable[Component]:
    """The exact negative log-likelihood."""
    return [
        Component(
            "next-token",
            "platform_ar.objective:NextTokenNll",
            "the exact negative log-likelihood, token by token",
        )
    ]


@hookimpl
def platform_samplers() -> Iterable[Component]:
    """The sampler from left to right."""
    return [
        Component(
            "left-to-right",
            "platform_ar.sampler:LeftToRight",
            "draws each token given those before it, with a key-value cache",
        )
    ]
