"""Registration of the optimizer that this package adds."""

from collections.abc import Iterable

from platform_core.component import Component
from platform_core.hookspecs import hookimpl


@hookimpl
def platform_optimizers() -> Iterable[Component]:
    """The optimizers of this package, by name and import path."""
    return [
        Component(
            "new-part",
            "platform_core.templates.optimizer.optimizer:new_part",
            "steps by the sign of the averaged gradient",
        )
    ]
