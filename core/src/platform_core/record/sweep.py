"""The directory of a sweep: its specification, and the state of each trial.

    sweep.yaml         the file as it was given
    trials.json        axes, measurements, trials: name, labels, options, digest of the config
    configs/NAME.yaml  the config that a trial is started from
    trials/NAME/       the run directory of a trial
    state/NAME.json    the state of a trial
    logs/NAME.log      the output of a trial's processes
    locks/NAME         held by the process that runs a trial, and by the trial's processes

`platform report` reads all of this.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Literal

from platform_core.errors import UsageError
from platform_core.record.directory import LOCK, RunDirectory
from platform_core.record.files import ReadError, read_json, write_json
from platform_core.record.locks import take
from platform_core.record.results import read_result

FORMAT = 1

Status = Literal["waiting", "running", "finished", "failed", "interrupted"]


@dataclass(frozen=True)
class State:
    """The state of a trial.

    Args:
        status: finished means that the run ended, whether or not its measurements succeeded.
        exit_code: exit code of the trial's last process; negative for a signal.
        attempts: number of times that the run was started.
        started: time at which the last attempt began (ISO 8601, UTC).
        ended: time at which the last attempt ended.
        message: the last line printed by a process that failed.
        evaluations: each measurement's options, status, exit code and message.
    """

    status: Status = "waiting"
    exit_code: int | None = None
    attempts: int = 0
    started: str | None = None
    ended: str | None = None
    message: str = ""
    evaluations: Sequence[Mapping[str, Any]] = field(default_factory=tuple)

    def measured(self, options: Mapping[str, Any]) -> bool:
        """Whether the measurement with these options succeeded."""
        return any(
            done["options"] == options and done["status"] == "finished" for done in self.evaluations
        )

    @property
    def measurements_failed(self) -> int:
        """The number of measurements that failed."""
        return sum(done["status"] == "failed" for done in self.evaluations)


class SweepDirectory:
    """The files of one sweep."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path / "sweep.yaml"
        self.index = path / "trials.json"
        self.trials = path / "trials"
        self.slurm = path / "slurm"

    @classmethod
    def existing(cls, path: Path) -> "SweepDirectory":
        """The directory of a sweep that was started.

        Raises:
            UsageError: the directory holds no sweep.
        """
        sweep = cls(path)
        if not sweep.file.is_file():
            raise UsageError(f"{path} is no sweep (it has no sweep.yaml)")
        return sweep

    def run(self, name: str) -> RunDirectory:
        """The run directory of a trial."""
        return RunDirectory(self.trials / name)

    def config(self, name: str) -> Path:
        """The path of the config that a trial is started from."""
        return self.path / "configs" / f"{name}.yaml"

    def log(self, name: str) -> Path:
        """The path of the file with the output of a trial's processes."""
        return self.path / "logs" / f"{name}.log"

    def names(self) -> dict[str, str]:
        """The name of each trial of an earlier call, by the digest of its config.

        Raises:
            UsageError: the directory holds something else, or a sweep of another format.
        """
        if not self.index.exists():
            there = self.path.iterdir() if self.path.exists() else ()
            if any(path.name != LOCK for path in there):
                raise UsageError(f"{self.path} exists and is no sweep; give another --output")
            return {}
        index = read_json(self.index)
        if index.get("format") != FORMAT:
            raise UsageError(
                f"{self.index} has format {index.get('format')}, this platform writes {FORMAT}"
            )
        try:
            return {str(trial["digest"]): str(trial["name"]) for trial in index["trials"]}
        except (KeyError, TypeError) as error:
            raise ReadError(f"{self.index} is damaged: its trials lack {error}") from error

    def state(self, name: str) -> State:
        """The saved state of a trial; waiting if none is saved."""
        path = self.state_file(name)
        try:
            state = State(**read_json(path)) if path.exists() else State()
            whole = all({"options", "status", "ended"} <= {*done} for done in state.evaluations)
        except (ReadError, TypeError, KeyError) as error:
            # What is done is known by the results themselves; only measurements are made again.
            print(f"platform: warning: {path} is damaged ({error}); read anew", file=sys.stderr)
            return State()
        return state if whole else State()

    def set_state(self, name: str, state: State) -> None:
        """Writes the state of a trial, as a whole or not at all."""
        write_json(self.state_file(name), asdict(state))

    def has_result(self, name: str) -> bool:
        """Whether a trial's run has ended; evaluations alone in result.json do not count."""
        return "steps" in read_result(self.run(name))

    def done(self, name: str, evaluate: Sequence[Mapping[str, Any]]) -> bool:
        """Whether a trial's run has ended and all its measurements have succeeded."""
        state = self.state(name)
        return self.has_result(name) and all(state.measured(options) for options in evaluate)

    def lock(self, name: str) -> IO[str] | None:
        """Takes the lock to run a trial; None if another process holds the lock.

        A trial's processes inherit the open file, so the lock is free once the last of them has
        ended, whoever started them.
        """
        try:
            return take(self.path / "locks" / name)
        except BlockingIOError:
            return None

    def forget_dead(self, name: str) -> None:
        """Marks a trial as interrupted if it is marked as running but its processes were killed."""
        state = self.state(name)
        if state.status == "running" and (lock := self.lock(name)) is not None:
            with lock:
                self.set_state(name, replace(state, status="interrupted"))

    def state_file(self, name: str) -> Path:
        return self.path / "state" / f"{name}.json"


def find_runs(directory: Path) -> Path:
    """The folder of run directories: a sweep's trials, a run's parent, or the directory itself."""
    if (directory / "trials.json").is_file():
        return directory / "trials"
    if (directory / "config.yaml").is_file():
        return directory.absolute().parent
    return directory
