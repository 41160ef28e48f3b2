"""What this plugin brings: the evaluation `judge` and its metrics."""

from collections.abc import Iterable

from platform_core.component import Component
from platform_core.hookspecs import hookimpl


@hookimpl
def platform_evaluations() -> Iterable[Component]:
    """Samples under another model."""
    return [Component("judge", "platform_judge.evaluation:Judging", "samples under another model")]
