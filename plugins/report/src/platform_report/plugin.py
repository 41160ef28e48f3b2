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
            "show numbers of several runs, if measured alike, in one table",
        ),
        Component(
            "report",
            "platform_report.report_command:main",
            "make tables, plots and a web page of a sweep",
        ),
    ]
