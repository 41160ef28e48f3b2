"""What the package brings: a tracker, a callback, an optimizer and two launchers."""

from collections.abc import Iterable

from platform_core.component import Component
from platform_core.hookspecs import hookimpl


@hookimpl
def platform_trackers() -> Iterable[Component]:
    """One tracker."""
    return [Component("csv", "platform_lab.tracker:Csv", "CSV files in the run's directory")]


@hookimpl
def platform_callbacks() -> Iterable[Component]:
    """One callback."""
    return [
        Component("loss-below", "platform_lab.callback:LossBelow", "ends a training at a low loss")
    ]


@hookimpl
def platform_optimizers() -> Iterable[Component]:
    """One optimizer."""
    return [Component("signs", "platform_lab.optimizer:signs", "steps by the gradient's sign")]


@hookimpl
def platform_launchers() -> Iterable[Component]:
    """Two orders of one launcher."""
    return [
        Component("cheapest-first", "platform_lab.launcher:cheapest_first", "short trials first"),
        Component("dearest-first", "platform_lab.launcher:dearest_first", "long trials first"),
    ]
