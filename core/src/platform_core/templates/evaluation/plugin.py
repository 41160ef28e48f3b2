"""Registration of the evaluation that this package adds, and of its metric."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from platform_core.component import Component
from platform_core.hookspecs import hookimpl

if TYPE_CHECKING:
    from platform_core.record.cards import Metric


@hookimpl
def platform_evaluations() -> Iterable[Component]:
    """The evaluations of this package, by name and import path."""
    return [
        Component(
            "new-part",
            "platform_core.templates.evaluation.evaluation:NewPart",
            "how varied samples are",
        )
    ]


@hookimpl
def platform_metrics() -> Iterable["Metric"]:
    """The metrics that tables show of this package's records."""
    from platform_core.templates.evaluation.evaluation import METRIC

    return [METRIC]
