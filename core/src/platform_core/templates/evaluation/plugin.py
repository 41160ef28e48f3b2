"""The evaluation that this package adds, and its metric."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from platform_core.component import Component
from platform_core.hookspecs import hookimpl

if TYPE_CHECKING:
    from platform_core.record.cards import Metric


@hookimpl
def platform_evaluations() -> Iterable[Component]:
    """One evaluation."""
    return [
        Component(
            "new-part",
            "platform_core.templates.evaluation.evaluation:NewPart",
            "how varied samples are",
        )
    ]


@hookimpl
def platform_metrics() -> Iterable["Metric"]:
    """The number that tables show of it."""
    from platform_core.templates.evaluation.evaluation import METRIC

    return [METRIC]
