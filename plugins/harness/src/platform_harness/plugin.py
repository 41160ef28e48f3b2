"""What this plugin brings: the evaluation `tasks`."""

from collections.abc import Iterable

from platform_core.component import Component
from platform_core.hookspecs import hookimpl


@hookimpl
def platform_evaluations() -> Iterable[Component]:
    """Tasks of lm-evaluation-harness."""
    return [
        Component("tasks", "platform_harness.evaluation:Tasks", "tasks of lm-evaluation-harness")
    ]
