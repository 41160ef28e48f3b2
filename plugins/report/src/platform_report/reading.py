"""Reading of a sweep's directory: its trials, their states and their measurements.

    OUT/sweep.yaml, trials.json, trials/NAME/, state/NAME.json

A trial that waits, runs or has failed has no result, and its status says why.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from platform_core.errors import UsageError, did_you_mean
from platform_core.record import metrics
from platform_core.record.cards import RESULT, Measurement
from platform_core.record.directory import RunDirectory
from platform_core.record.results import measurements
from platform_core.record.tracker import identities

SEED = "seed"
"""The axis over which rows are averaged."""

FORMAT = 1

Labels = Mapping[str, str]


@dataclass(frozen=True)
class Trial:
    """One run of a sweep.

    Args:
        name: name of the trial.
        labels: label of the trial on each axis.
        options: options in which the trial differs from others.
        directory: directory of the run.
        state: the sweep's record of the trial; empty before it begins.
    """

    name: str
    labels: Labels
    options: Mapping[str, Any]
    directory: RunDirectory
    state: Mapping[str, Any]

    @cached_property
    def measured(self) -> list[Measurement]:
        """Every measurement of the trial; the one at the end of training comes first."""
        return measurements(self.directory, self.name)

    @cached_property
    def curves(self) -> list[dict[str, Any]]:
        """The lines of the trial's metrics."""
        return metrics.read(self.directory.metrics)

    @property
    def result(self) -> Measurement | None:
        """The measurement at the end of the trial; None before its end."""
        return next((found for found in self.measured if found.name == RESULT), None)

    @property
    def seed(self) -> str:
        """Label of the trial on the axis of seeds; empty without that axis."""
        return self.labels.get(SEED, "")

    @property
    def status(self) -> str:
        """State of the trial: waiting, running, finished, failed or interrupted."""
        known = "finished" if self.result else "waiting"
        return str(self.state.get("status", known))

    @property
    def why(self) -> str:
        """The status, and the reason where the sweep knows one."""
        code, message = self.state.get("exit_code"), self.state.get("message")
        parts = [self.status]
        if code:
            parts.append(f"exit code {code}")
        if message:
            parts.append(" ".join(str(message).split()))
        failed = [done for done in self.state.get("evaluations", []) if done["status"] == "failed"]
        parts += [f"{len(failed)} measurements failed"] if failed else []
        return ": ".join(parts)

    @property
    def aim_run(self) -> str | None:
        """The hash of the trial's run in Aim, if it has one."""
        return identities(self.directory).get("aim")


@dataclass(frozen=True)
class Group:
    """Trials that differ only in their seed: a row of a table."""

    labels: Labels
    trials: tuple[Trial, ...]

    @property
    def name(self) -> str:
        """The labels of the group in one line."""
        return ", ".join(self.labels.values()) or "all"


@dataclass(frozen=True)
class Sweep:
    """The present state of a sweep.

    Args:
        path: directory of the sweep.
        axes: labels by axis, in the sweep's order.
        evaluate: options of the measurements after each trial.
        trials: trials in the sweep's order.
        file: text of the sweep's YAML file.
    """

    path: Path
    axes: Mapping[str, Sequence[str]]
    evaluate: Sequence[Mapping[str, Any]]
    trials: tuple[Trial, ...]
    file: str

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Trials by their labels without the seed, in order."""
        found: dict[tuple[tuple[str, str], ...], list[Trial]] = {}
        for trial in self.trials:
            labels = tuple((axis, trial.labels[axis]) for axis in self.shown_axes)
            found.setdefault(labels, []).append(trial)
        return tuple(Group(dict(labels), tuple(trials)) for labels, trials in found.items())

    @property
    def folder(self) -> Path:
        """The folder of the trials' directories."""
        return self.trials[0].directory.path.parent if self.trials else self.path

    @property
    def measured(self) -> list[Measurement]:
        """Every measurement of every trial."""
        return [measurement for trial in self.trials for measurement in trial.measured]

    @property
    def shown_axes(self) -> list[str]:
        """All axes except the one of seeds."""
        return [axis for axis in self.axes if axis != SEED]

    def baseline(self, asked: Labels, group: Group) -> Group | None:
        """The group with the labels in `asked`, and `group`'s labels on other axes."""
        wanted = {**group.labels, **asked}
        return next((other for other in self.groups if other.labels == wanted), None)

    def require_labels(self, asked: Sequence[str]) -> dict[str, str]:
        """Labels by axis, from words AXIS=LABEL.

        Raises:
            UsageError: a word has another form, or the sweep has no such axis or label.
        """
        found = {}
        for word in asked:
            axis, equals, label = word.partition("=")
            if not equals:
                raise UsageError(f"--baseline {word} must be AXIS=LABEL, such as process=mdlm")
            if axis not in self.shown_axes:
                raise UsageError(
                    f"the sweep has no axis {axis} (its axes are {', '.join(self.shown_axes)})"
                    f"{did_you_mean(axis, self.shown_axes)}"
                )
            if label not in self.axes[axis]:
                raise UsageError(
                    f"axis {axis} has no {label} (there are {', '.join(self.axes[axis])})"
                    f"{did_you_mean(label, self.axes[axis])}"
                )
            found[axis] = label
        return found


def read_sweep(path: Path) -> Sweep:
    """Read the sweep in a directory, finished or not.

    Raises:
        UsageError: there is no sweep, or its record has another format.
    """
    listed, file = path / "trials.json", path / "sweep.yaml"
    if not listed.is_file():
        raise UsageError(
            f"{path} holds no sweep (it has no trials.json); `platform sweep FILE --output DIR` "
            "makes one"
        )
    plan = json.loads(listed.read_text(encoding="utf-8"))
    if plan.get("format") != FORMAT:
        raise UsageError(
            f"{listed} has format {plan.get('format')}, and this version reads {FORMAT}"
        )
    return Sweep(
        path,
        plan["axes"],
        plan.get("evaluate", []),
        tuple(_trial(path, entry) for entry in plan["trials"]),
        file.read_text(encoding="utf-8") if file.exists() else "",
    )


def read_runs(paths: Sequence[Path]) -> Sweep:
    """Single runs, as if they were the trials of a sweep; the report goes to the first of them.

    Raises:
        UsageError: one of them is no run, or a sweep beside others.
    """
    for path in paths:
        if len(paths) > 1 and (path / "trials.json").is_file():
            raise UsageError(f"{path} is a sweep, which is reported alone; leave the others out")
    runs = {str(path): RunDirectory.existing(path) for path in dict.fromkeys(paths)}
    short = {name: run.path.resolve().name for name, run in runs.items()}
    unique = len(set(short.values())) == len(short)
    names = {name: short[name] if unique else name for name in runs}
    trials = (Trial(names[name], {RUN: names[name]}, {}, run, {}) for name, run in runs.items())
    return Sweep(next(iter(runs.values())).path, {RUN: list(names.values())}, [], tuple(trials), "")


RUN = "run"
"""The axis of a report of single runs."""


def _trial(path: Path, entry: Mapping[str, Any]) -> Trial:
    state = path / "state" / f"{entry['name']}.json"
    return Trial(
        entry["name"],
        entry["labels"],
        entry["options"],
        RunDirectory(path / entry["run"]),
        json.loads(state.read_text(encoding="utf-8")) if state.exists() else {},
    )
