"""Launchers, which run the trials of a sweep: as processes of this machine, as jobs of a cluster
(`slurm`), or as a plugin does through `platform_launchers`.

A component of that hook is a function of `Setting` that returns a `Launcher`.
"""

import signal
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from platform_core.record.sweep import SweepDirectory
from platform_sweep.attempt import Attempt, Task
from platform_sweep.file import SlurmOptions


@dataclass(frozen=True)
class Setting:
    """Arguments of a launcher.

    Args:
        directory: directory of the sweep.
        options: the sweep's `slurm` section, with the options of `--slurm` replacing its own.
        jobs: number of trials that run at once.
    """

    directory: SweepDirectory
    options: SlurmOptions
    jobs: int


class Launcher(ABC):
    """A way to run tasks; callers call `poll` every `interval` seconds until nothing is left."""

    interval: float
    """Seconds between two calls of `poll`."""

    @abstractmethod
    def start(self, tasks: Sequence[Task]) -> None:
        """Accept the tasks, to begin them in their order."""

    @abstractmethod
    def poll(self) -> bool:
        """Make progress; return whether anything is left to run."""

    @abstractmethod
    def stop(self) -> str:
        """Begin to stop, and return a sentence on how; `poll` is called until nothing is left."""

    @abstractmethod
    def kill(self) -> None:
        """Stop at once, without waiting for trials to save themselves."""


@dataclass
class Turn:
    """A task and how often it may still be tried again."""

    task: Task
    retries: int


@final
class Local(Launcher):
    """Launcher of up to `jobs` trials at once on this machine."""

    interval = 0.1

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self._waiting: deque[Turn] = deque()
        self._running: list[tuple[Attempt, Turn]] = []

    def start(self, tasks: Sequence[Task]) -> None:
        self._waiting.extend(Turn(task, task.retries) for task in tasks)

    def poll(self) -> bool:
        """Check the running trials and start others in the places of those that have ended."""
        for entry in list(self._running):
            attempt, turn = entry
            if attempt.poll():
                self._running.remove(entry)
                if turn.retries and attempt.worth_repeating:
                    self._waiting.append(Turn(turn.task, turn.retries - 1))
        for _ in range(len(self._waiting)):
            if len(self._running) >= self.jobs:
                break
            turn = self._waiting.popleft()
            begun = Attempt.begin(turn.task)
            if begun is None:
                self._waiting.append(turn)  # Another process still holds the trial.
            else:
                self._running.append((begun, turn))
        return bool(self._running or self._waiting)

    def stop(self) -> str:
        """Start no more trials, and let the running ones save themselves."""
        self._waiting.clear()
        for attempt, _ in self._running:
            attempt.stop()
        return f"{len(self._running)} running trials save themselves; Ctrl-C again kills them"

    def kill(self) -> None:
        """Kill the running trials."""
        for attempt, _ in self._running:
            attempt.stop(signal.SIGKILL)


def open_local(setting: Setting) -> Launcher:
    """Open the launcher of `--launcher local`."""
    return Local(setting.jobs)
