"""Components of this plugin: the verbs `compare` and `report`."""

from collections.abc import Iterable

from platform_core.component import Component
from platform_core.hookspecs import hookimpl


@hookimpl
def platform_commands() -> Iterable[Component]:
    """Commands of `platform`: the verbs `compare` and `report`."""
    return [
        Component(
            "compare",
            "platform_report.compare_command:main",
            "numbers of runs in one table, if they were measured alike",
        ),
        Component(
            "report",
            "platform_report.report_command:main",
            "tables, plots and a page of a sweep",
        ),
    ]
