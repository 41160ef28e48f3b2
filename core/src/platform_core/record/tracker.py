"""Trackers: where the numbers and samples of a run go besides `metrics.jsonl`.

Aim is the tracker; where it is not wanted, or cannot be installed (Python 3.13), there is none.
Whatever goes wrong with Aim costs one warning and never the run. The trainer opens a tracker with
`Guarded`, on the main process, and closes it in a `finally`.
"""

import sys
import threading
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import yaml

from platform_core.component import ROLES
from platform_core.record.directory import RunDirectory

PATIENCE_SECONDS = 120.0
"""Longest wait for Aim at the beginning and at the end of a run; a new repository takes about 3."""

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


def _reason(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name == "aim":
        return "Aim is not installed (it needs Python below 3.13)"
    return f"{type(error).__name__}: {error}".splitlines()[0]
