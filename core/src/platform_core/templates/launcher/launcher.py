"""The launcher: starts the trials of a sweep.

    start(tasks);  poll() every `interval` seconds until it returns False: no trials are left

An `Attempt` is the process of one trial, with its log, its state and its lock; a launcher decides
when and where attempts begin. This launcher runs one trial at a time, the shortest name first.
"""

import signal
from collections.abc import Sequence
from typing import final

from platform_sweep.attempt import Attempt, Task
from platform_sweep.launcher import Launcher, Setting


@final
class NewPart(Launcher):
    """Runs one trial at a time on this machine."""

    interval = 0.1

    def __init__(self) -> None:
        self._waiting: list[Task] = []
        self._running: Attempt | None = None

    def start(self, tasks: Sequence[Task]) -> None:
        self._waiting = sorted(tasks, key=lambda task: len(task.name))

    def poll(self) -> bool:
        if self._running is not None and self._running.poll():
            self._running = None
        if self._running is None and self._waiting:
            self._running = Attempt.begin(self._waiting[0])
            if self._running is not None:  # else another process has the trial: tried again later
                del self._waiting[0]
        return self._running is not None or bool(self._waiting)

    def stop(self) -> str:
        self._waiting.clear()
        if self._running is not None:
            self._running.stop()
        return "the running trial saves itself; Ctrl-C again kills it"

    def kill(self) -> None:
        if self._running is not None:
            self._running.stop(signal.SIGKILL)


def open_launcher(setting: Setting) -> Launcher:
    """The launcher that `platform sweep --launcher new-part` names."""
    return NewPart()
