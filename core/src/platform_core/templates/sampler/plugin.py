"""Registration of the part that this package adds."""

from collections.abc import Iterable

from platform_core.component import Component
from platform_core.hookspecs import hookimpl


@hookimpl
def platform_samplers() -> Iterable[Component]:
    """The samplers of this package, by name and import path."""
    return [
        Component(
            "new-part",
            "platform_core.templates.sampler.sampler:NewPart",
            "the reverse process, with more steps where text is almost clean",
        )
    ]
