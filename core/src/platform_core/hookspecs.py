"""The hooks of the platform: read this first.

A plugin is a module with functions of these names, marked `@hookimpl`, that return data: components
or metrics. The platform finds a plugin by the entry point
`[project.entry-points."platform_core.plugins"]` of its distribution, or by the option `-p`.

The first six hooks provide the parts of a model, one hook for each role. The others provide verbs,
evaluations, metrics, trackers, corpora, tokenizers, launchers, callbacks, optimizers and rewards.
The class or function named in a hook's description defines the interface of its components. The
platform's own parts and services are registered through the same hooks.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

from platform_core.component import Component

if TYPE_CHECKING:
    from platform_core.record.cards import Metric

HOOK_API = 1
"""Version of the hooks, increased when a hook changes its meaning. A plugin may state the version
that it was written for, as `PLATFORM_HOOK_API = 1`; every other version then refuses the plugin.
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
    """Parameterizations: how to read the network's output
    (`platform_core.parameterization.Parameterization`).
    """


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
    """Verbs of `platform`: functions `main(argv)`, called with the words after the verb.

    Each function returns the exit code, and raises `platform_core.errors.UsageError` for a user's
    mistake.
    """


@hookspec
def platform_evaluations() -> Iterable[Component]:  # type: ignore[empty-body]
    """Evaluations of `platform eval RUN` (`platform_core.evaluation.evaluation.Evaluation`)."""


@hookspec
def platform_metrics() -> Iterable["Metric"]:  # type: ignore[empty-body]
    """Metrics: numbers that tables show, and the facts on which these numbers depend
    (`platform_core.record.cards.Metric`, which imports no torch).
    """


@hookspec
def platform_trackers() -> Iterable[Component]:  # type: ignore[empty-body]
    """Trackers: services that show a run in training (`platform_core.record.tracker.Tracker`)."""


@hookspec
def platform_corpora() -> Iterable[Component]:  # type: ignore[empty-body]
    """Corpora that `--data.corpus` can name: functions of `DataOptions` that return a
    `platform_core.data.corpus.Corpus`.

    A corpus named like a file suffix, such as yaml, also opens the files with that suffix.
    """


@hookspec
def platform_tokenizers() -> Iterable[Component]:  # type: ignore[empty-body]
    """Kinds of tokenizers by their `kind` (`platform_core.data.tokenizer.base.Tokenizer`)."""


@hookspec
def platform_launchers() -> Iterable[Component]:  # type: ignore[empty-body]
    """Launchers: services that run the trials of a sweep (`platform_sweep.launcher.Launcher`)."""


@hookspec
def platform_callbacks() -> Iterable[Component]:  # type: ignore[empty-body]
    """Callbacks: classes that observe training (`platform_core.callback.Callback`)."""


@hookspec
def platform_optimizers() -> Iterable[Component]:  # type: ignore[empty-body]
    """Optimizers that `--train.optimizer` can name: functions of the trained parameters by name and
    `TrainOptions` that return a torch optimizer (`platform_core.training.optimizers`).
    """


@hookspec
def platform_rewards() -> Iterable[Component]:  # type: ignore[empty-body]
    """Rewards: what a text is worth to samplers that prefer some texts
    (`platform_core.reward.Reward`).
    """


ROLE_HOOKS = {
    "process": "platform_processes",
    "schedule": "platform_schedules",
    "parameterization": "platform_parameterizations",
    "backbone": "platform_backbones",
    "objective": "platform_objectives",
    "sampler": "platform_samplers",
}
"""The hook that collects the parts of each role."""

SERVICE_HOOKS = {
    "command": "platform_commands",
    "evaluation": "platform_evaluations",
    "tracker": "platform_trackers",
    "corpus": "platform_corpora",
    "tokenizer": "platform_tokenizers",
    "launcher": "platform_launchers",
    "callback": "platform_callbacks",
    "optimizer": "platform_optimizers",
    "reward": "platform_rewards",
}
"""The hook that collects each kind of service."""

METRICS_HOOK = "platform_metrics"
"""The one hook that returns objects other than components."""

HOOKS = {**ROLE_HOOKS, **SERVICE_HOOKS, "metric": METRICS_HOOK}
"""The hook of each kind of thing that a plugin may provide."""
