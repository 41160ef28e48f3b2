"""The directory of a sweep: what was asked, and how far each trial is.

    sweep.yaml         the file as it was given
    trials.json        axes, measurements, trials: name, labels, options, digest of the config
    configs/NAME.yaml  what a trial is started from
    trials/NAME/       its run directory
    state/NAME.json    how far it is
    logs/NAME.log      what its processes printed
    locks/NAME         held by whoever runs it, and by its processes

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
    """How far a trial is.

    Args:
        status: finished is a run that ended, whatever became of its measurements.
        exit_code: of its last process; negative for a signal.
        attempts: how often its run was started.
        started: when the last attempt began (ISO 8601, UTC).
        ended: when it ended.
        message: the last line that a process which failed printed.
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
        """Whether a measurement succeeded."""
        return any(
            done["options"] == options and done["status"] == "finished" for done in self.evaluations
        )

    @property
    def measurements_failed(self) -> int:
        """How many measurements did not succeed."""
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
            UsageError: there is no sweep there.
        """
        sweep = cls(path)
        if not sweep.file.is_file():
            raise UsageError(f"{path} is no sweep (it has no sweep.yaml)")
        return sweep

    def run(self, name: str) -> RunDirectory:
        """The run of a trial."""
        return RunDirectory(self.trials / name)

    def config(self, name: str) -> Path:
        """What a trial is started from."""
        return self.path / "configs" / f"{name}.yaml"

    def log(self, name: str) -> Path:
        """What a trial's processes printed."""
        return self.path / "logs" / f"{name}.log"

    def names(self) -> dict[str, str]:
        """The name of each trial of an earlier call, by the digest of its config.

        Raises:
            UsageError: the directory holds something else, or a later platform's sweep.
        """
        if not self.index.exists():
            there = self.path.iterdir() if self.path.exists() else ()
            if any(path.name != LOCK for path in there):
                raise UsageError(f"{self.path} is there and no sweep; give another --output")
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
        """How far a trial is."""
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
        """Writes it as a whole."""
        write_json(self.state_file(name), asdict(state))

    def has_result(self, name: str) -> bool:
        """Whether a trial's run came to its end; measurements alone make no result."""
        return "steps" in read_result(self.run(name))

    def done(self, name: str, evaluate: Sequence[Mapping[str, Any]]) -> bool:
        """Whether a trial and all its measurements are made."""
        state = self.state(name)
        return self.has_result(name) and all(state.measured(options) for options in evaluate)

    def lock(self, name: str) -> IO[str] | None:
        """The right to run a trial, or nothing while somebody has it.

        A trial's processes inherit the open file: the right is free once the last of them has
        ended, whoever started them.
        """
        try:
            return take(self.path / "locks" / name)
        except BlockingIOError:
            return None

    def forget_dead(self, name: str) -> None:
        """Says of a trial whose processes were killed that it was interrupted."""
        state = self.state(name)
        if state.status == "running" and (lock := self.lock(name)) is not None:
            with lock:
                self.set_state(name, replace(state, status="interrupted"))

    def state_file(self, name: str) -> Path:
        return self.path / "state" / f"{name}.json"


def find_runs(directory: Path) -> Path:
    """The directory that run directories are in: itself, its trials, or its parent."""
    if (directory / "trials.json").is_file():
        return directory / "trials"
    if (directory / "config.yaml").is_file():
        return directory.absolute().parent
    return directory
