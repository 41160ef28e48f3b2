"""Trackers: where the numbers and samples of a run go besides `metrics.jsonl`.

    hook platform_trackers -> Tracker.open(directory, about, identity) -> log, text, figure -> close

Whatever goes wrong with a tracker costs one warning and never the run: `open_trackers`, which the
trainer calls on its main process, gives each a `Guarded`, and closes all in a `finally`.
"""

import sys
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import Empty, Queue
from typing import Any, ClassVar, Self

import yaml

from platform_core.component import ROLES
from platform_core.errors import UsageError
from platform_core.record.directory import RunDirectory
from platform_core.record.files import ReadError, read_json, write_json

PATIENCE_SECONDS = 120.0
"""Longest wait for a tracker at the beginning and at the end of a run; Aim takes about 3 to make a
repository.
"""

_Work = tuple[Callable[[], None], "Queue[BaseException | None]"]
"""Something to do, and where to say how it failed."""


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
        step: of the checkpoint that a resumed run goes on from, 0 of a new run; what was tracked of
            later steps is tracked again.
    """

    name: str
    parts: Mapping[str, str]
    hyperparameters: Mapping[str, Any]
    versions: Mapping[str, str]
    sweep: str | None = None
    step: int = 0

    def sections(self) -> dict[str, Any]:
        """What queries see at the top."""
        given, parts = self.hyperparameters, self.parts
        roles = {role: {**given.get(role, {}), "name": parts[role]} for role in parts}
        sweep = {"sweep": self.sweep} if self.sweep else {}
        return {**given, **roles, **sweep, "versions": self.versions}


def about(directory: RunDirectory, versions: Mapping[str, str], step: int = 0) -> About:
    """What a run directory says of its run."""
    config = yaml.safe_load(directory.config.read_text(encoding="utf-8"))
    parts = {role: config[role]["name"] for role in ROLES}
    return About(directory.path.name, parts, config, versions, directory.sweep, step)


class Display(ABC):
    """Shows a run while it trains. Steps never fall while it is open."""

    @abstractmethod
    def log(self, metrics: Mapping[str, float], *, step: int, subset: str) -> None:
        """Metrics of one subset (train, validation, ...) at one step, NaN and infinity among them;
        repeated ones replace.
        """

    @abstractmethod
    def text(self, name: str, samples: Sequence[str], *, step: int) -> None:
        """Samples of text at one step, maybe none; repeated ones replace."""

    @abstractmethod
    def figure(self, path: Path, *, step: int) -> None:
        """A figure by the file of its data, which `evaluation.figures.plotted` draws; a repeated
        one replaces.
        """

    @abstractmethod
    def close(self) -> None:
        """Finishes the run; nothing is tracked afterwards."""


class Tracker(Display):
    """What `--track.to NAME` can name, and a plugin brings by the hook `platform_trackers`.

    A method may raise anything: the run then says so once, goes on and asks it nothing more.
    Opening and closing happen in a thread of their own, everything else in the run's.
    """

    title: ClassVar[str]
    """What messages call it."""

    @classmethod
    @abstractmethod
    def open(cls, directory: RunDirectory, about: About, identity: str | None) -> Self:
        """Begins to show a run, or goes on with it.

        Args:
            directory: of the run; its config.yaml is there.
            about: what is known of the run.
            identity: what tracking.json has kept, of this run or what `new_identity` gave; None
                where neither has one.
        """

    @property
    @abstractmethod
    def identity(self) -> str | None:
        """The tracker's name for this run; with it, a resumed run goes on in the same place."""

    @classmethod
    def unusable(cls) -> str | None:
        """Why it cannot be used here, in one sentence (a package is missing, Python is too new);
        None where it can. Imports nothing heavy.
        """
        return None

    @classmethod
    def new_identity(cls) -> str | None:
        """An identity for a new run, kept before the run begins so that one killed at once is
        known by it; None where only the opened tracker knows its own.
        """
        return None

    @classmethod
    def prepare(cls, runs: Path) -> None:
        """Called once by a sweep, before many processes open runs in the directory at once."""

    @classmethod
    def viewer(cls, runs: Path) -> str | None:
        """The command that shows the runs of a directory; None where there is none to name."""
        return None


class NoTracker(Tracker):
    """Shows nothing."""

    title = "no tracker"

    @classmethod
    def open(cls, directory: RunDirectory, about: About, identity: str | None) -> Self:
        """There is nothing to begin."""
        return cls()

    @property
    def identity(self) -> str | None:
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


def new_hash() -> str:
    """An identity that no other run has: 24 hexadecimal digits, such as Aim gives."""
    return uuid.uuid4().hex[:24]


class Guarded(Display):
    """A tracker whose first failure costs one warning and turns it off, and never stops the run.

    Args:
        make: makes the tracker.
        title: what the warning calls it.
        identity: of the run to go on with; kept in case `make` fails, for a later attempt.
        patience: seconds after which making or closing the tracker has failed.
    """

    def __init__(
        self,
        make: Callable[[], Tracker],
        *,
        title: str,
        identity: str | None = None,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._tracker: Tracker = NoTracker()
        self._title, self._identity = title, identity
        self._patience = patience
        self._off = False
        # One thread for both, because what locks a run in one thread cannot unlock it in another.
        self._actions: Queue[_Work] = Queue()
        threading.Thread(target=_work, args=[self._actions], daemon=True).start()
        self._try_patiently(lambda: self._begin(make))

    @classmethod
    def of(
        cls, kind: type[Tracker], directory: RunDirectory, about: About, identity: str | None = None
    ) -> "Guarded":
        """A tracker of this kind, opened."""
        make = partial(_opened, kind, directory, about, identity)
        return cls(make, title=kind.title, identity=identity)

    @property
    def identity(self) -> str | None:
        """The tracker's identity, even after it failed."""
        return self._identity

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
        self._identity = self._tracker.identity

    def _try(self, action: Callable[[], None]) -> None:
        if not self._off:
            self._judge(_failure(action))

    def _try_patiently(self, action: Callable[[], None]) -> None:
        """Tries what may never return: Aim waits for ever for a thread of its own that has died,
        which it does where the disk is full or a directory of the repository cannot be written.
        """
        if self._off:
            return
        outcome: Queue[BaseException | None] = Queue()
        self._actions.put((action, outcome))
        try:
            self._judge(outcome.get(timeout=self._patience))
        except Empty:
            self._judge(TimeoutError(f"no answer in {self._patience:g} s"))

    def _judge(self, failure: BaseException | None) -> None:
        if failure is None:
            return
        self._off = True
        _ABANDONED.append((self, failure))
        _warn(f"{self._title} tracking is off: {_reason(failure)}; metrics.jsonl keeps everything")


_ABANDONED: list[tuple[Display, BaseException]] = []
"""Trackers that failed. Collected, Aim would try to close them again, and print a traceback or wait
for ever. One that failed while it began is known only to the traceback of its failure.
"""


class Several(Display):
    """Shows a run in every place that it is given.

    Args:
        displays: name -> where to show it.
    """

    def __init__(self, displays: Mapping[str, Display]) -> None:
        self.displays = dict(displays)

    def log(self, metrics: Mapping[str, float], *, step: int, subset: str) -> None:
        """Logs everywhere."""
        for display in self.displays.values():
            display.log(metrics, step=step, subset=subset)

    def text(self, name: str, samples: Sequence[str], *, step: int) -> None:
        """Logs samples everywhere."""
        for display in self.displays.values():
            display.text(name, samples, step=step)

    def figure(self, path: Path, *, step: int) -> None:
        """Logs a figure everywhere."""
        for display in self.displays.values():
            display.figure(path, step=step)

    def close(self) -> None:
        """Closes all."""
        for display in self.displays.values():
            display.close()


def open_trackers(
    kinds: Mapping[str, type[Tracker]], directory: RunDirectory, about: About
) -> Several:
    """A run's trackers by name, each guarded; tracking.json keeps their identities."""
    known = identities(directory)
    begun = {name: known.get(name) or kind.new_identity() for name, kind in kinds.items()}
    # Before the run begins anywhere: a killed one is to be known by the same name.
    keep_identities(directory, begun)
    opened = {name: Guarded.of(kind, directory, about, begun[name]) for name, kind in kinds.items()}
    keep_identities(directory, {name: tracker.identity for name, tracker in opened.items()})
    return Several(opened)


def prepare_trackers(kinds: Mapping[str, type[Tracker]], runs: Path) -> None:
    """Lets each prepare for many runs of a directory; what fails is left to each run to say."""
    for kind in kinds.values():
        failure = _failure(partial(kind.prepare, runs))
        if failure is not None:
            _warn(f"{kind.title} could not be prepared: {_reason(failure)}; each run tries again")


def identities(directory: RunDirectory) -> dict[str, str]:
    """Tracker -> its name for a run, as far as tracking.json has kept any."""
    known = _tracking(directory)
    # Runs of before there were several trackers have the hash of their run in Aim, or null.
    old = {"aim": known["aim_run"]} if known.get("aim_run") else {}
    named = known.get("trackers", {})
    both = {**old, **(named if isinstance(named, dict) else {})}
    return {name: value for name, value in both.items() if isinstance(value, str)}


def keep_identities(
    directory: RunDirectory, given: Mapping[str, str | None], *, began: float | None = None
) -> None:
    """Keeps more identities in tracking.json, and when the run began: seconds since 1970, now
    unless it is known.
    """
    kept = {**identities(directory), **{name: value for name, value in given.items() if value}}
    began = when_began(directory) or began or time.time()
    write_json(directory.tracking, {"began": began, "trackers": kept})


def when_began(directory: RunDirectory) -> float | None:
    """When a run began, in seconds since 1970; None where its tracking.json does not say."""
    began = _tracking(directory).get("began")
    return began if type(began) in (int, float) else None


def _tracking(directory: RunDirectory) -> dict[str, Any]:
    """What tracking.json says; nothing where it is damaged, so that trackers begin anew."""
    try:
        return read_json(directory.tracking) if directory.tracking.exists() else {}
    except ReadError as error:
        _warn(f"{error}; trackers begin a run of their own")
        return {}


def _opened(
    kind: type[Tracker], directory: RunDirectory, about: About, identity: str | None
) -> Tracker:
    missing = kind.unusable()
    if missing:
        raise UsageError(missing)
    return kind.open(directory, about, identity)


def _work(actions: "Queue[_Work]") -> None:
    while True:
        action, outcome = actions.get()
        outcome.put(_failure(action))


def _failure(action: Callable[[], None]) -> BaseException | None:
    try:
        action()
    # Everything: Aim alone lets through what RocksDB, SQLAlchemy, filelock, Alembic's process, the
    # file system and the import of a broken installation raise; a stranger's tracker may also exit.
    except (Exception, SystemExit) as error:
        return error
    return None


def _reason(error: BaseException) -> str:
    if isinstance(error, UsageError):
        return str(error)
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _warn(said: str) -> None:
    print(f"platform: warning: {said}", file=sys.stderr)
