"""Trackers: services that show the numbers and samples of a run, besides `metrics.jsonl`.

    hook platform_trackers -> Tracker.open(directory, about, identity) -> log, text, figure -> close

A failure of a tracker costs one warning and never the run: `open_trackers`, which a run calls on
its main process, wraps each tracker in a `Guarded`. The run closes all trackers, also after errors.
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

from platform_core.component import ROLES
from platform_core.errors import UsageError
from platform_core.record.directory import RunDirectory
from platform_core.record.files import ReadError, read_json, write_json
from platform_core.record.yaml_tree import read_tree

PATIENCE_SECONDS = 120.0
"""Longest wait for any call of a tracker; Aim takes about 3 seconds to make a repository."""

_Work = tuple[Callable[[], None], "Queue[BaseException | None]"]
"""An action, and the queue that receives its error, or None if it succeeds."""


@dataclass(frozen=True)
class About:
    """The facts about a run that are known when it begins.

    Args:
        name: name of the run.
        parts: role -> name of the chosen part; without a sweep, Aim's experiment is the process.
        hyperparameters: section -> options, or single values; the name of a role's part is added
            to the role's section.
        versions: versions of the packages that numbers depend on.
        sweep: the sweep that the run is a trial of; also Aim's experiment, and a tag.
        step: step of the checkpoint from which a resumed run continues, 0 for a new run; later
            steps are tracked again.
    """

    name: str
    parts: Mapping[str, str]
    hyperparameters: Mapping[str, Any]
    versions: Mapping[str, str]
    sweep: str | None = None
    step: int = 0

    def sections(self) -> dict[str, Any]:
        """Options by section, parts, sweep and versions, as the queries of trackers see them."""
        given, parts = self.hyperparameters, self.parts
        roles = {role: {**given.get(role, {}), "name": parts[role]} for role in parts}
        sweep = {"sweep": self.sweep} if self.sweep else {}
        return {**given, **roles, **sweep, "versions": self.versions}


def about(directory: RunDirectory, versions: Mapping[str, str], step: int = 0) -> About:
    """The facts about a run, from the run directory and its config."""
    config = read_tree(directory.config, "config file")
    parts = {role: config[role]["name"] for role in ROLES}
    return About(directory.path.name, parts, config, versions, directory.sweep, step)


class Display(ABC):
    """An interface that shows a run while it trains; steps never decrease while it is open."""

    @abstractmethod
    def log(self, metrics: Mapping[str, float], *, step: int, subset: str) -> None:
        """Shows metrics of one subset (train, validation, ...) at one step, maybe NaN or infinite.

        A metric that is logged again at a step replaces the earlier value.
        """

    @abstractmethod
    def text(self, name: str, samples: Sequence[str], *, step: int) -> None:
        """Shows samples of text at one step, maybe none; repeated samples replace earlier ones."""

    @abstractmethod
    def figure(self, path: Path, *, step: int) -> None:
        """Shows a figure, given the file of its data, which `evaluation.figures.plotted` draws.

        A figure that is logged again at a step replaces the earlier one.
        """

    @abstractmethod
    def close(self) -> None:
        """Finishes the run; nothing is tracked afterwards."""


class Tracker(Display):
    """A tracker for `--track.to NAME`, which a plugin provides by the hook `platform_trackers`.

    A method may raise any error, or never return: the run then prints one warning, goes on and
    calls the tracker no more. All methods are called in one thread, which is not the run's and
    serves no other tracker.
    """

    title: ClassVar[str]
    """The name of the tracker in messages."""

    @classmethod
    @abstractmethod
    def open(cls, directory: RunDirectory, about: About, identity: str | None) -> Self:
        """Begins to show a new run, or continues with a resumed run.

        Args:
            directory: the run directory; its config.yaml exists.
            about: the facts about the run.
            identity: the run's identity in tracking.json, or the one from `new_identity`; None if
                there is neither.
        """

    @property
    @abstractmethod
    def identity(self) -> str | None:
        """The tracker's name for this run; with it, a resumed run goes on in the same place."""

    @classmethod
    def unusable(cls) -> str | None:
        """Why the tracker cannot be used on this machine, in one sentence; None if it can be used.

        Reasons are, for example, that a package is missing or Python is too new. The method imports
        nothing heavy.
        """
        return None

    @classmethod
    def new_identity(cls) -> str | None:
        """An identity for a new run; None if only the opened tracker knows the identity.

        The identity is saved before the run begins, so that even a run killed at once has it.
        """
        return None

    @classmethod
    def prepare(cls, runs: Path) -> None:
        """Prepares a folder of runs; a sweep calls this before many processes open runs in it."""

    @classmethod
    def viewer(cls, runs: Path) -> str | None:
        """The command that shows the runs of a directory; None if there is no such command."""
        return None


class NoTracker(Tracker):
    """A tracker that shows nothing."""

    title = "no tracker"

    @classmethod
    def open(cls, directory: RunDirectory, about: About, identity: str | None) -> Self:
        return cls()

    @property
    def identity(self) -> str | None:
        return None

    def log(self, metrics: Mapping[str, float], *, step: int, subset: str) -> None:
        pass

    def text(self, name: str, samples: Sequence[str], *, step: int) -> None:
        pass

    def figure(self, path: Path, *, step: int) -> None:
        pass

    def close(self) -> None:
        pass


def new_hash() -> str:
    """An identity that no other run has: 24 hexadecimal digits, as in Aim."""
    return uuid.uuid4().hex[:24]


class Guarded(Display):
    """A wrapper of a tracker: a first failure prints one warning and turns the tracker off.

    A failure never stops the run.

    Args:
        make: opens the tracker.
        title: name of the tracker in the warning.
        identity: identity of the run to continue; kept for a later attempt if `make` fails.
        patience: seconds without an answer after which the tracker counts as failed.
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
        # One thread for all calls, because a run locked in one cannot be unlocked in another.
        self._actions: Queue[_Work] = Queue()
        threading.Thread(target=_work, args=[self._actions], daemon=True).start()
        self._try(lambda: self._begin(make))

    @classmethod
    def of(
        cls, kind: type[Tracker], directory: RunDirectory, about: About, identity: str | None = None
    ) -> "Guarded":
        """Opens a tracker of this kind, guarded."""
        make = partial(_opened, kind, directory, about, identity)
        return cls(make, title=kind.title, identity=identity)

    @property
    def identity(self) -> str | None:
        """The tracker's identity, even after it failed."""
        return self._identity

    def log(self, metrics: Mapping[str, float], *, step: int, subset: str) -> None:
        self._try(lambda: self._tracker.log(metrics, step=step, subset=subset))

    def text(self, name: str, samples: Sequence[str], *, step: int) -> None:
        self._try(lambda: self._tracker.text(name, samples, step=step))

    def figure(self, path: Path, *, step: int) -> None:
        self._try(lambda: self._tracker.figure(path, step=step))

    def close(self) -> None:
        """Closes the tracker, only once; a failure costs a warning."""
        self._try(lambda: self._tracker.close())
        self._off = True

    def _begin(self, make: Callable[[], Tracker]) -> None:
        self._tracker = make()
        self._identity = self._tracker.identity

    def _try(self, action: Callable[[], None]) -> None:
        """Tries an action that may never return, for at most `patience` seconds.

        On a full disk, Aim waits for ever for its own threads, which have died, and RocksDB below
        Aim stops every write until there is room again.
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
"""Trackers that failed, with their errors, kept from garbage collection.

On collection, Aim would try to close them again, and print a traceback or wait for ever. Only the
traceback of the error refers to a tracker that failed while it was opened.
"""


class Several(Display):
    """Several displays of one run, used like one.

    Args:
        displays: name -> display.
    """

    def __init__(self, displays: Mapping[str, Display]) -> None:
        self.displays = dict(displays)

    def log(self, metrics: Mapping[str, float], *, step: int, subset: str) -> None:
        for display in self.displays.values():
            display.log(metrics, step=step, subset=subset)

    def text(self, name: str, samples: Sequence[str], *, step: int) -> None:
        for display in self.displays.values():
            display.text(name, samples, step=step)

    def figure(self, path: Path, *, step: int) -> None:
        for display in self.displays.values():
            display.figure(path, step=step)

    def close(self) -> None:
        for display in self.displays.values():
            display.close()


def open_trackers(
    kinds: Mapping[str, type[Tracker]], directory: RunDirectory, about: About
) -> Several:
    """Opens a run's trackers, each guarded, and saves their identities in tracking.json."""
    known = identities(directory)
    begun = {name: known.get(name) or kind.new_identity() for name, kind in kinds.items()}
    # Saved before any tracker opens, so that a killed run keeps its identities.
    keep_identities(directory, begun)
    opened = {name: Guarded.of(kind, directory, about, begun[name]) for name, kind in kinds.items()}
    keep_identities(directory, {name: tracker.identity for name, tracker in opened.items()})
    return Several(opened)


def prepare_trackers(kinds: Mapping[str, type[Tracker]], runs: Path) -> None:
    """Lets each tracker prepare a directory for many runs; a failure costs a warning."""
    for kind in kinds.values():
        failure = _failure(partial(kind.prepare, runs))
        if failure is not None:
            _warn(f"{kind.title} could not be prepared: {_reason(failure)}; each run tries again")


def identities(directory: RunDirectory) -> dict[str, str]:
    """Name of a tracker -> its identity for a run, for those that tracking.json holds."""
    known = _tracking(directory)
    # Old runs, from when Aim was the only tracker, have the hash of their run in Aim, or null.
    old = {"aim": known["aim_run"]} if known.get("aim_run") else {}
    named = known.get("trackers", {})
    both = {**old, **(named if isinstance(named, dict) else {})}
    return {name: value for name, value in both.items() if isinstance(value, str)}


def keep_identities(
    directory: RunDirectory, given: Mapping[str, str | None], *, began: float | None = None
) -> None:
    """Adds identities to tracking.json, and the time at which the run began.

    The time is in seconds since 1970: the saved time, else `began`, else the present.
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
    # All errors: Aim alone passes on those of RocksDB, SQLAlchemy, filelock, Alembic's process, the
    # file system and the import of a broken installation; a plugin's tracker may even exit.
    except (Exception, SystemExit) as error:
        return error
    return None


def _reason(error: BaseException) -> str:
    if isinstance(error, UsageError):
        return str(error)
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _warn(said: str) -> None:
    print(f"platform: warning: {said}", file=sys.stderr)
