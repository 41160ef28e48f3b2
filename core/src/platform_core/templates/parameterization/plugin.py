"""Registration of the part that this package adds."""

from collections.abc import Iterable

from platform_core.component import Component
from platform_core.hookspecs import hookimpl


@hookimpl
def platform_parameterizations() -> Iterable[Component]:
    """The parameterizations of this package, by name and import path."""
    return [
        Component(
            "new-part",
            "platform_core.templates.parameterization.parameterization:NewPart",
            "the softmax at a temperature predicts the clean token",
        )
    ]
