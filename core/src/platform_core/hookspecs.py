"""The hooks of the platform: read this first.

A plugin is a module with functions of these names, marked `@hookimpl`, that return data: components
or metrics. It is found by the entry point `[project.entry-points."platform_core.plugins"]` of its
distribution, or named on the command line with `-p`.

The first six hooks bring the parts of a model, one hook for each role. The others bring what
surrounds a model: verbs, evaluations, metrics, trackers, corpora, tokenizers, launchers and
callbacks. What a component must be able to do is said by the class or function that the hook's
description names. The platform's own parts and services are registered through the same hooks.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

from platform_core.component import Component

if TYPE_CHECKING:
    from platform_core.record.cards import Metric

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


@hookspec
def platform_commands() -> Iterable[Component]:  # type: ignore[empty-body]
    """Verbs of `platform`: a function `main(argv)`, called with the words after the verb.

    It returns the exit code, and raises `platform_core.errors.UsageError` for a user's mistake.
    """


@hookspec
def platform_evaluations() -> Iterable[Component]:  # type: ignore[empty-body]
    """What `platform eval RUN` can measure (`platform_core.evaluation.evaluation.Evaluation`)."""


@hookspec
def platform_metrics() -> Iterable["Metric"]:  # type: ignore[empty-body]
    """Numbers that tables show, and the facts on which they depend
    (`platform_core.record.cards.Metric`, which imports no torch).
    """


@hookspec
def platform_trackers() -> Iterable[Component]:  # type: ignore[empty-body]
    """Where a run is shown while it trains (`platform_core.record.tracker.Tracker`)."""


@hookspec
def platform_corpora() -> Iterable[Component]:  # type: ignore[empty-body]
    """Texts that `--data.corpus` can name: a function of `DataOptions` that returns a
    `platform_core.data.corpus.Corpus`.

    A corpus named like a suffix, such as yaml, is also asked for by files that end in it.
    """


@hookspec
def platform_tokenizers() -> Iterable[Component]:  # type: ignore[empty-body]
    """Kinds of tokenizers by their `kind` (`platform_core.data.tokenizer.base.Tokenizer`)."""


@hookspec
def platform_launchers() -> Iterable[Component]:  # type: ignore[empty-body]
    """What runs the trials of a sweep (`platform_sweep.launcher.Launcher`)."""


@hookspec
def platform_callbacks() -> Iterable[Component]:  # type: ignore[empty-body]
    """What sees each update of a training (`platform_core.callback.Callback`)."""


ROLE_HOOKS = {
    "process": "platform_processes",
    "schedule": "platform_schedules",
    "parameterization": "platform_parameterizations",
    "backbone": "platform_backbones",
    "objective": "platform_objectives",
    "sampler": "platform_samplers",
}
"""The hook that collects each role's parts."""

SERVICE_HOOKS = {
    "command": "platform_commands",
    "evaluation": "platform_evaluations",
    "tracker": "platform_trackers",
    "corpus": "platform_corpora",
    "tokenizer": "platform_tokenizers",
    "launcher": "platform_launchers",
    "callback": "platform_callbacks",
}
"""The hook that collects each kind of service."""

METRICS_HOOK = "platform_metrics"
"""The one hook that returns objects other than components."""

HOOKS = {**ROLE_HOOKS, **SERVICE_HOOKS, "metric": METRICS_HOOK}
"""The hook of everything that a plugin may bring, by kind."""
