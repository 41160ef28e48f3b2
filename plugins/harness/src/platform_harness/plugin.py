"""Components of this plugin: the evaluation `tasks` and its metrics."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from platform_core.component import Component
from platform_core.hookspecs import hookimpl

if TYPE_CHECKING:
    from platform_core.record.cards import Metric


@hookimpl
def platform_evaluations() -> Iterable[Component]:
    """The evaluation of tasks from lm-evaluation-harness."""
    return [
        Component("tasks", "platform_harness.evaluation:Tasks", "tasks of lm-evaluation-harness")
    ]


@hookimpl
def platform_metrics() -> Iterable["Metric"]:
    """Metrics of tasks: accuracies and other numbers."""
    from platform_harness.metrics import TASKS

    return [TASKS]
