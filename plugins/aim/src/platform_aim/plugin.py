"""What this plugin brings: the tracker `aim` and the verb `dashboard`."""

from collections.abc import Iterable

from platform_core.component import Component
from platform_core.hookspecs import hookimpl


@hookimpl
def platform_trackers() -> Iterable[Component]:
    """Aim's repository beside the run directory."""
    return [
        Component("aim", "platform_aim.tracker:AimTracker", "curves, samples and figures in Aim")
    ]


@hookimpl
def platform_commands() -> Iterable[Component]:
    """Verbs of this plugin."""
    return [
        Component(
            "dashboard",
            "platform_aim.dashboard:main",
            "show the curves of runs in Aim's web interface",
        ),
    ]
