"""The six hooks of the platform: read this first.

A plugin is a module with functions of these names, marked `@hookimpl`, that return components. It
is found by the entry point `[project.entry-points."platform_core.plugins"]` of its distribution,
or named on the command line with `-p`. A hook's components are parts of one role each; what a role
must be able to do is the abstract class of the module named in the hook's description.
"""

from collections.abc import Iterable

import pluggy

from platform_core.component import Component

HOOK_API = 1
"""Raised when a hook changes its meaning. A plugin may say which it was written for, as
`PLATFORM_HOOK_API = 1`, and is then refused by any other.
"""

PROJECT = "platform_core"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def platform_processes() -> Iterable[Component]:  # type: ignore[empty-body]
    """Processes: how clean tokens are noised and un-noised (`platform_core.process.Process`)."""


@hookspec
def platform_schedules() -> Iterable[Component]:  # type: ignore[empty-body]
    """Schedules: how much signal is left at time t (`platform_core.schedule.Schedule`)."""


@hookspec
def platform_parameterizations() -> Iterable[Component]:  # type: ignore[empty-body]
    """What the network's output means (`platform_core.parameterization.Parameterization`)."""


@hookspec
def platform_backbones() -> Iterable[Component]:  # type: ignore[empty-body]
    """Backbones: the network (`platform_core.backbone.Backbone`)."""


@hookspec
def platform_objectives() -> Iterable[Component]:  # type: ignore[empty-body]
    """Objectives: the training loss and the bound (`platform_core.objective.Objective`)."""


@hookspec
def platform_samplers() -> Iterable[Component]:  # type: ignore[empty-body]
    """Samplers: how text is drawn (`platform_core.sampler.Sampler`)."""


HOOKS = {
    "process": "platform_processes",
    "schedule": "platform_schedules",
    "parameterization": "platform_parameterizations",
    "backbone": "platform_backbones",
    "objective": "platform_objectives",
    "sampler": "platform_samplers",
}
"""The hook that collects each role's parts."""
