"""GIDD's parts."""

from collections.abc import Iterable

from platform_core.component import Component
from platform_core.hookspecs import hookimpl


@hookimpl
def platform_processes() -> Iterable[Component]:
    """The hybrid noise, which carries the family's defaults."""
    return [
        Component(
            "gidd",
            "platform_gidd.process:Gidd",
            "masks and other tokens at once, in shares that change on the way",
            defaults={
                "parameterization": "vocabulary",
                "schedule": "hybrid",
                "objective": "hybrid-nelbo",
                "sampler": "ancestral",
                "backbone": "dit",
            },
        )
    ]


@hookimpl
def platform_schedules() -> Iterable[Component]:
    """The curve on which masks grow in a line."""
    return [Component("hybrid", "platform_gidd.schedule:Hybrid", "alpha = (1 - t) / C, of GIDD")]


@hookimpl
def platform_parameterizations() -> Iterable[Component]:
    """A law without masks, where not only masks are noise."""
    return [
        Component(
            "vocabulary",
            "platform_gidd.parameterization:Vocabulary",
            "logits give the law of the clean token, nothing on the mask",
        )
    ]


@hookimpl
def platform_objectives() -> Iterable[Component]:
    """The bound with other weights in training."""
    return [
        Component(
            "hybrid-nelbo",
            "platform_gidd.objective:HybridNelbo",
            "the bound; training weighs its noise levels more evenly",
        )
    ]


@hookimpl
def platform_samplers() -> Iterable[Component]:
    """Correction of what another sampler has drawn."""
    return [
        Component(
            "self-correction",
            "platform_gidd.sampler:SelfCorrection",
            "replaces unlikely tokens of what another sampler draws (--sampler.inner)",
            around="ancestral",
        )
    ]
