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

import fcntl
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Literal

from platform_core.directory import RunDirectory
from platform_core.errors import UsageError
from platform_core.files import digest, write_json, write_text
from platform_core.results import read_result
from platform_core.sweep.plan import Plan

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
            if self.path.exists() and any(self.path.iterdir()):
                raise UsageError(f"{self.path} is there and no sweep; give another --output")
            return {}
        index = json.loads(self.index.read_text(encoding="utf-8"))
        if index["format"] != FORMAT:
            raise UsageError(
                f"{self.index} has format {index['format']}, this platform writes {FORMAT}"
            )
        return {trial["digest"]: trial["name"] for trial in index["trials"]}

    def refuse_changed(self, plan: Plan) -> None:
        """Stops before a trial is taken for another one of its name.

        Raises:
            UsageError: runs are there that were made from other configs.
        """
        changed = [
            trial.name
            for trial in plan.trials
            if self.run(trial.name).config.is_file()
            and digest(self.run(trial.name).config) != trial.digest
        ]
        if changed:
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            raise UsageError(
                f"{self.trials / changed[0]}{more} was made with other options; give another "
                "--output, or remove what is to be made anew"
            )

    def write(self, plan: Plan, content: bytes) -> None:
        """Records what is asked for; the trials that are there stay as they are."""
        self.trials.mkdir(parents=True, exist_ok=True)
        for trial in plan.trials:
            write_text(self.config(trial.name), trial.config)
            if not self._state(trial.name).exists():
                self.set_state(trial.name, State())
        write_json(
            self.index,
            {
                "format": FORMAT,
                "axes": {
                    axis: [value.label for value in values]
                    for axis, values in plan.file.axes.items()
                },
                "evaluate": [dict(measurement.options) for measurement in plan.file.evaluate],
                "trials": [
                    {
                        "name": trial.name,
                        "run": f"trials/{trial.name}",
                        "labels": dict(trial.labels),
                        "options": dict(trial.options),
                        "evaluate": [dict(options) for options in trial.evaluate],
                        "digest": trial.digest,
                    }
                    for trial in plan.trials
                ],
            },
        )
        beside = self.file.with_name(".sweep.yaml.partial")
        beside.write_bytes(content)
        beside.replace(self.file)

    def state(self, name: str) -> State:
        """How far a trial is."""
        path = self._state(name)
        return State(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else State()

    def set_state(self, name: str, state: State) -> None:
        """Writes it as a whole."""
        write_json(self._state(name), asdict(state))

    def has_result(self, name: str) -> bool:
        """Whether a trial's run came to its end; measurements alone make no result."""
        return "steps" in read_result(self.run(name))

    def done(self, name: str, evaluate: Sequence[Mapping[str, Any]]) -> bool:
        """Whether a trial and all its measurements are made."""
        state = self.state(name)
        return self.has_result(name) and all(state.measured(options) for options in evaluate)

    def lock(self, name: str) -> IO[str] | None:
        """The right to run a trial, or nothing while somebody has it.

        The lock is of the open file, which a trial's processes inherit: it is free once the last of
        them has ended, whoever started them.
        """
        path = self.path / "locks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("a", encoding="utf-8")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.close()
            return None
        return stream

    def forget_dead(self, name: str) -> None:
        """Says of a trial whose processes were killed that it was interrupted."""
        state = self.state(name)
        if state.status == "running" and (lock := self.lock(name)) is not None:
            with lock:
                self.set_state(name, replace(state, status="interrupted"))

    def _state(self, name: str) -> Path:
        return self.path / "state" / f"{name}.json"
