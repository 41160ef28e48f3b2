"""Trackers: where the numbers and samples of a run go besides `metrics.jsonl`.

Aim is the tracker; where it is not wanted, or cannot be installed (Python 3.13), there is none.
Whatever goes wrong with Aim costs one warning and never the run. The trainer opens a tracker with
`open_tracker`, on the main process, and closes it in a `finally`.
"""

import json
import sys
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import yaml

from platform_core.aim_repository import (
    alive,
    date_end,
    import_aim,
    in_use,
    index,
    open_repository,
    prepare_run,
)
from platform_core.component import ROLES
from platform_core.directory import RunDirectory

PATIENCE_SECONDS = 120.0
"""Longest wait for Aim at the beginning and at the end of a run; a new repository takes about 3."""

INDEX_SECONDS = 2.0
"""Longest wait at the end of a run for another process that is indexing."""

_Work = tuple[Callable[[], None], "Queue[Exception | None]"]
"""Something to do, and where to say how it failed."""


class Tracker(ABC):
    """Shows a run while it trains."""

    @property
    @abstractmethod
    def hash(self) -> str | None:
        """The tracker's name for this run; with it, a resumed run goes on in the same place."""

    @abstractmethod
    def log(self, metrics: Mapping[str, float], *, step: int, subset: str) -> None:
        """Metrics of one subset (train, validation, ...) at one step; repeated ones replace."""

    @abstractmethod
    def text(self, name: str, samples: Sequence[str], *, step: int) -> None:
        """Samples of text at one step; repeated ones replace."""

    @abstractmethod
    def figure(self, path: Path, *, step: int) -> None:
        """A figure by the file of its data (`figures`); a repeated one replaces."""

    @abstractmethod
    def close(self) -> None:
        """Finishes the run; nothing is tracked afterwards."""


class NoTracker(Tracker):
    """Shows nothing."""

    @property
    def hash(self) -> None:
        """There is nothing to go on with."""
        return None

    def log(self, metrics: Mapping[str, float], *, step: int, subset: str) -> None:
        """Does nothing."""

    def text(self, name: str, samples: Sequence[str], *, step: int) -> None:
        """Does nothing."""

    def figure(self, path: Path, *, step: int) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


@dataclass(frozen=True)
class About:
    """What is known of a run when it begins.

    Args:
        name: of the run.
        parts: role -> name of the chosen part; without a sweep the process is Aim's experiment.
        hyperparameters: section -> options, or single values; the name of a role's part is added
            to the role's section.
        versions: of the packages that numbers depend on.
        sweep: that the run is a trial of; it is Aim's experiment, and a tag.
    """

    name: str
    parts: Mapping[str, str]
    hyperparameters: Mapping[str, Any]
    versions: Mapping[str, str]
    sweep: str | None = None

    def sections(self) -> dict[str, Any]:
        """What queries see at the top."""
        given, parts = self.hyperparameters, self.parts
        roles = {role: {**given.get(role, {}), "name": parts[role]} for role in parts}
        sweep = {"sweep": self.sweep} if self.sweep else {}
        return {**given, **roles, **sweep, "versions": self.versions}


def about(directory: RunDirectory, versions: Mapping[str, str]) -> About:
    """What a run directory says of its run."""
    config = yaml.safe_load(directory.config.read_text(encoding="utf-8"))
    parts = {role: config[role]["name"] for role in ROLES}
    return About(directory.path.name, parts, config, versions, directory.sweep)


def new_hash() -> str:
    """A name for a new run, such as Aim gives."""
    return uuid.uuid4().hex[:24]


class AimTracker(Tracker):
    """One run in an Aim repository.

    Queries see each section of the hyper-parameters at the top: `run.process.name == "duo"`,
    `run.train.learning_rate < 1e-2`, `run.sweep == "noise"`,
    `metric.context.subset == "validation"`.

    Args:
        repository: a directory called `.aim`; made if missing.
        about: what is known of the run when it begins.
        run_hash: of a run to go on with, or to make again where the repository has it no more.
        clock: seconds since 1970, by which the run and what it tracks are dated.
    """

    def __init__(
        self,
        repository: Path,
        about: "About",
        *,
        run_hash: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._aim = import_aim()
        self._hash = run_hash or new_hash()
        with ExitStack() as started:
            started.enter_context(in_use(repository))
            self._repo = open_repository(repository)
            started.enter_context(alive(repository, self._hash))
            prepare_run(self._repo, self._hash, created=clock())
            self._run = self._aim.Run(
                self._hash,
                repo=self._repo,
                # The lock of a killed run stays where it was another machine's, or where its
                # process id is in use again. Ours above keeps two living writers apart.
                force_resume=True,
                log_system_params=False,
                capture_terminal_logs=False,
                system_tracking_interval=None,
            )
            self._describe(about)
            self._locks = started.pop_all()

    @property
    def hash(self) -> str:
        """Aim's hash of the run."""
        return self._hash

    def log(
        self, metrics: Mapping[str, float], *, step: int, subset: str, level: str | None = None
    ) -> None:
        """Tracks numbers in the context of their subset, and of their part of the noise levels."""
        context = {"subset": subset} if level is None else {"subset": subset, "level": level}
        for name, value in metrics.items():
            self._track(float(value), name, step, context)

    def text(self, name: str, samples: Sequence[str], *, step: int) -> None:
        """Tracks all samples of a step as one list."""
        if samples:
            self._track([self._aim.Text(sample) for sample in samples], name, step)

    def figure(self, path: Path, *, step: int) -> None:
        """Tracks the plot as an image, and the bound by noise level also as curves."""
        from platform_core import figures

        record = json.loads(path.read_text(encoding="utf-8"))
        self._track(self._aim.Image(str(figures.plotted(path))), record["kind"], step)
        for level in record.get("levels", ()):
            where = f"{level['start']:.1f}-{level['end']:.1f}"
            bound = {"level_nats_per_token": level["nats_per_token"]}
            self.log(bound, step=step, subset=record["subset"], level=where)

    def close(self) -> None:
        """Finishes the run and indexes it, so that queries and the web interface find it."""
        with self._locks:
            ended = self._clock()
            self._run.close()
            # Aim flushes the files and marks the run as finished when nothing refers to it.
            del self._run
            date_end(self._repo, self._hash, ended)
            # If the index is not free in time, whoever holds it is a dashboard and indexes this.
            index(self._repo, [self._hash], patience=INDEX_SECONDS)

    def _track(
        self, value: Any, name: str, step: int, context: Mapping[str, str] | None = None
    ) -> None:
        # `Run.track` without its own date, and without hiding what goes wrong.
        self._run._tracker._track(value, self._clock(), name, step, context=dict(context or {}))

    def _describe(self, about: "About") -> None:
        self._run.name = about.name
        self._run.experiment = about.sweep or about.parts["process"]
        for section, value in about.sections().items():
            self._run[section] = _plain(value)
        if about.sweep and about.sweep not in self._run.tags:
            self._run.add_tag(about.sweep)


class Guarded(Tracker):
    """A tracker whose first failure costs one warning and turns it off, and never stops the run.

    Args:
        make: makes the tracker.
        run_hash: of the run to go on with; kept in case `make` fails, for a later attempt.
        patience: seconds after which making or closing the tracker has failed.
    """

    def __init__(
        self,
        make: Callable[[], Tracker],
        *,
        run_hash: str | None = None,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._tracker: Tracker = NoTracker()
        self._hash = run_hash
        self._patience = patience
        self._off = False
        # One thread for both, because what locks a run in one thread cannot unlock it in another.
        self._actions: Queue[_Work] = Queue()
        threading.Thread(target=_work, args=[self._actions], daemon=True).start()
        self._try_patiently(lambda: self._begin(make))

    @property
    def hash(self) -> str | None:
        """The tracker's hash, even after it failed."""
        return self._hash

    def log(self, metrics: Mapping[str, float], *, step: int, subset: str) -> None:
        """Logs, or turns the tracker off."""
        self._try(lambda: self._tracker.log(metrics, step=step, subset=subset))

    def text(self, name: str, samples: Sequence[str], *, step: int) -> None:
        """Logs samples, or turns the tracker off."""
        self._try(lambda: self._tracker.text(name, samples, step=step))

    def figure(self, path: Path, *, step: int) -> None:
        """Logs a figure, or turns the tracker off."""
        self._try(lambda: self._tracker.figure(path, step=step))

    def close(self) -> None:
        """Closes once; a failure is only reported."""
        self._try_patiently(lambda: self._tracker.close())
        self._off = True

    def _begin(self, make: Callable[[], Tracker]) -> None:
        self._tracker = make()
        self._hash = self._tracker.hash

    def _try(self, action: Callable[[], None]) -> None:
        if not self._off:
            self._judge(_failure(action))

    def _try_patiently(self, action: Callable[[], None]) -> None:
        """Tries what may never return: Aim waits for ever for a thread of its own that has died,
        which it does where the disk is full or a directory of the repository cannot be written.
        """
        if self._off:
            return
        outcome: Queue[Exception | None] = Queue()
        self._actions.put((action, outcome))
        try:
            self._judge(outcome.get(timeout=self._patience))
        except Empty:
            self._judge(TimeoutError(f"no answer in {self._patience:g} s"))

    def _judge(self, failure: Exception | None) -> None:
        if failure is None:
            return
        self._off = True
        _ABANDONED.append(self)
        reason = _reason(failure)
        print(
            f"platform: warning: Aim tracking is off: {reason}; metrics.jsonl keeps everything",
            file=sys.stderr,
        )


def open_tracker(
    repository: Path, about: About, *, aim: bool, run_hash: str | None = None
) -> Tracker:
    """Aim's tracker, guarded, or none. The arguments are those of `AimTracker`."""
    if not aim:
        return NoTracker()
    return Guarded(lambda: AimTracker(repository, about, run_hash=run_hash), run_hash=run_hash)


_ABANDONED: list[Tracker] = []
"""Trackers that failed. Collected, Aim would try to close them again and print a traceback."""


def _work(actions: "Queue[_Work]") -> None:
    while True:
        action, outcome = actions.get()
        outcome.put(_failure(action))


def _failure(action: Callable[[], None]) -> Exception | None:
    try:
        action()
    # Everything: Aim lets through what RocksDB, SQLAlchemy, filelock, Alembic's process, the file
    # system and the import of a broken installation raise, which have no other base in common.
    except Exception as error:
        return error
    return None


def _plain(value: Any) -> Any:
    """What Aim can store: plain JSON, integers of 64 bits."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, bool | float | None) or (isinstance(value, int) and abs(value) < 2**63):
        return value
    return str(value)


def _reason(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name == "aim":
        return "Aim is not installed (it needs Python below 3.13)"
    return f"{type(error).__name__}: {error}".splitlines()[0]
