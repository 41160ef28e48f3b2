"""Components of this plugin: the verb `sweep`, and the launchers of trials."""

from collections.abc import Iterable

from platform_core.component import Component
from platform_core.hookspecs import hookimpl


@hookimpl
def platform_commands() -> Iterable[Component]:
    """Commands of `platform`: the verb `sweep`."""
    return [
        Component(
            "sweep",
            "platform_sweep.command:main",
            "train many models that differ in a few options, checked before any starts",
        ),
    ]


@hookimpl
def platform_launchers() -> Iterable[Component]:
    """Launchers for this machine and for a SLURM cluster."""
    return [
        Component("local", "platform_sweep.launcher:open_local", "processes of this machine"),
        Component("slurm", "platform_sweep.slurm:open_slurm", "jobs of a SLURM cluster"),
    ]
