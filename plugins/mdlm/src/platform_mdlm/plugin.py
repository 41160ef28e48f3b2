"""Parts of the MDLM family: process, parameterization, objectives and samplers."""

from collections.abc import Iterable

from platform_core.component import Component
from platform_core.hookspecs import hookimpl


@hookimpl
def platform_processes() -> Iterable[Component]:
    """The process `mdlm`, with the default parts of the family."""
    return [
        Component(
            "mdlm",
            "platform_mdlm.process:Mdlm",
            "masks, by default without telling the network the noise level",
            defaults={
                "parameterization": "subs",
                "schedule": "log-linear",
                "objective": "masked-nelbo",
                "sampler": "ancestral",
                "backbone": "dit",
            },
        )
    ]


@hookimpl
def platform_parameterizations() -> Iterable[Component]:
    """The law of the clean token under masks."""
    return [
        Component(
            "subs",
            "platform_mdlm.parameterization:Subs",
            "the law of the clean token: no probability for the mask, tokens carried over",
        )
    ]


@hookimpl
def platform_objectives() -> Iterable[Component]:
    """MDLM's closed form of the bound, and distillation."""
    return [
        Component(
            "masked-nelbo",
            "platform_mdlm.objective:MaskedNelbo",
            "the bound under masks as a weighted cross-entropy, in continuous time or T steps",
        ),
        Component(
            "sdtt",
            "platform_mdlm.objective:Sdtt",
            "distillation: a student learns to do in one step what its teacher does in several",
        ),
    ]


@hookimpl
def platform_samplers() -> Iterable[Component]:
    """Samplers that only masks allow, and one for long texts."""
    return [
        Component(
            "cached-ancestral",
            "platform_mdlm.sampler:CachedAncestral",
            "ancestral, reading a sequence again only after it changed",
        ),
        Component(
            "first-hitting",
            "platform_mdlm.sampler:FirstHitting",
            "exact in continuous time: draws one token at a time, each at its random time",
        ),
        Component(
            "semi-autoregressive",
            "platform_mdlm.sampler:SemiAutoregressive",
            "texts longer than the model's, window by window",
        ),
        Component(
            "remdm",
            "platform_mdlm.sampler:Remdm",
            "tokens may be masked again and redrawn",
        ),
    ]
