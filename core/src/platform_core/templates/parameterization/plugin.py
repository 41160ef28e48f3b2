"""The part that this package adds."""

from collections.abc import Iterable

from platform_core.component import Component
from platform_core.hookspecs import hookimpl


@hookimpl
def platform_parameterizations() -> Iterable[Component]:
    """One parameterization."""
    return [
        Component(
            "new-part",
            "platform_core.templates.parameterization.parameterization:NewPart",
            "logits give the law of the clean token at a temperature",
        )
    ]
