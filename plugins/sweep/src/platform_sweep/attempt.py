"""One attempt at a trial: its run, new or resumed, then its measurements, as child processes."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from platform_core.composition.sources import ENVIRONMENT, Layer, read_environment
from platform_core.errors import EXIT_CTRL_C, EXIT_INTERRUPTED, EXIT_MISTAKE
from platform_core.record.sweep import Status, SweepDirectory
from platform_sweep.plan import measurement_words

STOPPED = (EXIT_INTERRUPTED, EXIT_CTRL_C, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP)
"""Exit codes of a process that was asked to stop."""


@dataclass(frozen=True)
class Task:
    """The work of one trial, as plain data that can go to another machine.

    Args:
        sweep: the sweep's directory.
        name: the trial's name.
        evaluate: options of the trial's measurements.
        retries: how often a trial that is killed or fails is tried again at once.
        variables: environment variables for the trial's processes.
    """

    sweep: Path
    name: str
    evaluate: Sequence[Mapping[str, Any]] = ()
    retries: int = 1
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def directory(self) -> SweepDirectory:
        return SweepDirectory(self.sweep)

    def done(self) -> bool:
        """Whether the trial's run and all its measurements are done."""
        return self.directory.done(self.name, self.evaluate)


class Attempt:
    """The processes of one trial, one after another, while the attempt holds the trial's lock.

    The caller calls `poll` until it returns that the attempt is over.
    """

    def __init__(self, task: Task, lock: IO[str]) -> None:
        self.task, self.directory = task, task.directory
        self._lock, self._stopping = lock, False
        log = self.directory.log(task.name)
        log.parent.mkdir(exist_ok=True)
        self._log = log.open("ab")
        self._offset = 0
        self._measuring: Mapping[str, Any] | None = None
        # In memory: the clock may be set back between two measurements.
        self._tried: list[Mapping[str, Any]] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._state = replace(
            self.directory.state(task.name), status="running", started=_now(), ended=None
        )
        self._next()

    @classmethod
    def begin(cls, task: Task) -> "Attempt | None":
        """Begin an attempt; None while another process has the trial."""
        lock = task.directory.lock(task.name)
        return None if lock is None else cls(task, lock)

    @property
    def worth_repeating(self) -> bool:
        """Whether the attempt ended unfinished, but neither stopped nor by a user's mistake."""
        codes = [done["exit_code"] for done in self._state.evaluations]
        mistake = EXIT_MISTAKE in (codes or [self._state.exit_code])
        return not (self.task.done() or self._stopping or mistake)

    def poll(self) -> bool:
        """Start the next process when one has ended; return whether the attempt is over."""
        if self._process is None:
            return True
        code = self._process.poll()
        if code is None:
            return False
        self._process = None
        if self._measuring is None:
            self._ran(code)
        else:
            self._measured(self._measuring, code)
        return self._process is None

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Signal the process to save itself and leave, or kill it; start no other process."""
        self._stopping = True
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def _next(self) -> None:
        """Start the next process, unless the attempt is finished or stopping."""
        words = self._due()
        if words is None:
            self._end("finished")
        elif self._stopping:
            self._end("interrupted", self._state.message)
        else:
            self._start(words)

    def _due(self) -> list[str] | None:
        """The command-line words of the next process; None when all processes are done."""
        name, run = self.task.name, self.directory.run(self.task.name)
        if not self.directory.has_result(name):
            self._state = replace(self._state, attempts=self._state.attempts + 1)
            if run.config.is_file():
                return ["run", f"--resume={run.path}"]
            # The run was killed before its record began, so nothing in its directory is of use.
            shutil.rmtree(run.path, ignore_errors=True)
            return ["run", f"--config={self.directory.config(name)}", f"--output={run.path}"]
        for options in self.task.evaluate:
            if options not in self._tried and not self._state.measured(options):
                self._measuring = options
                self._tried.append(options)
                return ["eval", str(run.path), *measurement_words(options)]
        return None

    def _start(self, words: Sequence[str]) -> None:
        self.directory.set_state(self.task.name, self._state)
        self._log.write(f"[{_now()}] platform {' '.join(words)}\n".encode())
        self._log.flush()
        self._offset = self._log.tell()
        self._process = subprocess.Popen(
            [*command(), *words],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=_environment(self.task.variables),
            # Ctrl-C goes to the sweep, which stops its trials; the processes share the lock.
            start_new_session=True,
            pass_fds=[self._lock.fileno()],
        )

    def _ran(self, code: int) -> None:
        self._state = replace(self._state, exit_code=code, message="")
        if code == 0 and self.directory.has_result(self.task.name):
            self._next()
        else:
            killed = code < 0 or code in STOPPED
            self._end("interrupted" if killed else "failed", self._last_line())

    def _measured(self, options: Mapping[str, Any], code: int) -> None:
        self._measuring = None
        if code in STOPPED or (self._stopping and code < 0):
            self._end("interrupted", self._last_line())
            return
        record = {
            "options": dict(options),
            "status": "failed" if code else "finished",
            "exit_code": code,
            "message": self._last_line() if code else "",
            "ended": _now(),
        }
        others = [done for done in self._state.evaluations if done["options"] != options]
        self._state = replace(self._state, evaluations=[*others, record])
        self._next()

    def _end(self, status: Status, message: str = "") -> None:
        self._state = replace(self._state, status=status, message=message, ended=_now())
        self.directory.set_state(self.task.name, self._state)
        self._log.close()
        self._lock.close()

    def _last_line(self) -> str:
        with self.directory.log(self.task.name).open("rb") as stream:
            stream.seek(self._offset)
            text = stream.read().decode("utf-8", errors="replace")
        lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
        return lines[-1] if lines else ""


def command() -> list[str]:
    """The command before the words of a verb."""
    return [sys.executable, "-P", "-m", "platform_sweep.child", str(os.getpid())]


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without options of runs, which a trial's config holds already.

    No module of the current directory stands in for a library's, in processes of a trial either.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PLATFORM_") or read_environment({name: value}) == Layer(ENVIRONMENT)
    }
    return {**kept, "PYTHONSAFEPATH": "1", **variables}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
