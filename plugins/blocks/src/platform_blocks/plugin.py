"""Parts of this package: the bound and the sampler of block diffusion."""

from collections.abc import Iterable

from platform_core.component import Component
from platform_core.hookspecs import hookimpl


@hookimpl
def platform_objectives() -> Iterable[Component]:
    """The bound of text that is written block after block."""
    return [
        Component(
            "block-nelbo",
            "platform_blocks.objective:BlockNelbo",
            "the bound of text written block after block, each by the process",
        )
    ]


@hookimpl
def platform_samplers() -> Iterable[Component]:
    """Writes block after block by another sampler."""
    return [
        Component(
            "blocks",
            "platform_blocks.sampler:Blocks",
            "block after block, each by another sampler (--sampler.inner)",
            around="ancestral",
        )
    ]
