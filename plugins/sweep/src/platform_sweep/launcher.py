"""What runs the trials of a sweep: processes of this machine, jobs of a cluster (`slurm`), or
what a plugin brings through `platform_launchers`.

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
    """What a launcher is made from.

    Args:
        directory: of the sweep.
        options: the sweep's `slurm` section with what `--slurm` says over it.
        jobs: how many trials run at once.
    """

    directory: SweepDirectory
    options: SlurmOptions
    jobs: int


class Launcher(ABC):
    """Runs tasks; who drives it calls `poll` every `interval` seconds until nothing is left."""

    interval: float
    """Seconds between two looks."""

    @abstractmethod
    def start(self, tasks: Sequence[Task]) -> None:
        """Takes the tasks on, those that need it first to last."""

    @abstractmethod
    def poll(self) -> bool:
        """Moves on; whether anything is still to come."""

    @abstractmethod
    def stop(self) -> str:
        """Begins to leave, and says how; `poll` is called until nothing is left."""

    @abstractmethod
    def kill(self) -> None:
        """Leaves at once."""


@dataclass
class Turn:
    """A task and how often it may still be tried again."""

    task: Task
    retries: int


@final
class Local(Launcher):
    """So many at once on this machine."""

    interval = 0.1

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self._waiting: deque[Turn] = deque()
        self._running: list[tuple[Attempt, Turn]] = []

    def start(self, tasks: Sequence[Task]) -> None:
        self._waiting.extend(Turn(task, task.retries) for task in tasks)

    def poll(self) -> bool:
        """Looks at the running ones and fills their places."""
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
                self._waiting.append(turn)  # until whoever has it lets go
            else:
                self._running.append((begun, turn))
        return bool(self._running or self._waiting)

    def stop(self) -> str:
        """Starts no more; the running ones save themselves."""
        self._waiting.clear()
        for attempt, _ in self._running:
            attempt.stop()
        return f"{len(self._running)} running trials save themselves; Ctrl-C again kills them"

    def kill(self) -> None:
        """Kills the running ones."""
        for attempt, _ in self._running:
            attempt.stop(signal.SIGKILL)


def open_local(setting: Setting) -> Launcher:
    """`--launcher local`."""
    return Local(setting.jobs)
