"""MDLM's parts."""

from collections.abc import Iterable

from platform_core.component import Component
from platform_core.hookspecs import hookimpl


@hookimpl
def platform_processes() -> Iterable[Component]:
    """The family's process, which carries its defaults."""
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
            "the law of the clean token: nothing on the mask, tokens carried over",
        )
    ]


@hookimpl
def platform_objectives() -> Iterable[Component]:
    """MDLM's closed form of the bound, and the distillation of what it trained."""
    return [
        Component(
            "masked-nelbo",
            "platform_mdlm.objective:MaskedNelbo",
            "the bound of masks as a weighted cross-entropy, in continuous time or T steps",
        ),
        Component(
            "sdtt",
            "platform_mdlm.objective:Sdtt",
            "distillation: a student learns to predict at once what its teacher does in steps",
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
            "exact in continuous time: one token at a time, at the times at which they appear",
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
