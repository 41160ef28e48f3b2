"""Components of this plugin: the evaluation `judge` and its metrics."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from platform_core.component import Component
from platform_core.hookspecs import hookimpl

if TYPE_CHECKING:
    from platform_core.record.cards import Metric


@hookimpl
def platform_evaluations() -> Iterable[Component]:
    """The evaluation of samples under another model."""
    return [Component("judge", "platform_judge.evaluation:Judging", "samples under another model")]


@hookimpl
def platform_metrics() -> Iterable["Metric"]:
    """Metrics of samples under a judge."""
    from platform_judge.metrics import METRICS

    return METRICS
