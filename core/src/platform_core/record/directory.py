"""A run directory: the whole record of a run, and the paths of its files."""

import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from platform_core.errors import UsageError

BETWEEN_SAMPLES = "\n\n---\n\n"
"""Separator of the texts in a file in samples/."""


class RunDirectory:
    """The files of one run; see ARCHITECTURE.md for what each holds."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.environment = path / "environment.json"
        self.tokenizer = path / "tokenizer.json"
        self.labels = path / "labels.json"
        self.metrics = path / "metrics.jsonl"
        self.tracking = path / "tracking.json"
        self.result = path / "result.json"
        self.init = path / "init.json"
        self.samples = path / "samples"
        self.figures = path / "figures"
        self.checkpoints = path / "checkpoints"
        self.evaluations = path / "evaluations"

    @classmethod
    def existing(cls, path: str | Path) -> "RunDirectory":
        """The directory of a run that was started.

        Raises:
            UsageError: the directory holds no run.
        """
        run = cls(Path(path))
        if not run.config.is_file():
            here = (
                "is no run directory (it has no config.yaml)"
                if run.path.exists()
                else "does not exist"
            )
            raise UsageError(f"{run.path} {here}; `platform run --output DIR` makes one")
        return run

    @classmethod
    def named(cls, output: str | None, *, default: str) -> "RunDirectory":
        """The directory asked for, or one under runs/ named after the parts and the time."""
        return cls(Path(output or f"runs/{default}-{time.strftime('%Y%m%d-%H%M%S')}"))

    @property
    def sweep(self) -> str | None:
        """The name SWEEP of the sweep, if this run is its trial `SWEEP/trials/NAME`; else None."""
        trials = self.path.absolute().parent
        made = trials.name == "trials" and (trials.parent / "trials.json").is_file()
        return trials.parent.name if made else None

    def steps(self) -> list[int]:
        """The steps of the run's checkpoints, in ascending order."""
        return sorted(int(path.name[5:]) for path in self.checkpoints.glob("step-[0-9]*"))

    def refuse_existing(self, *, overwrite: bool) -> None:
        """Refuses a path at which a new run would replace files that have to stay.

        Raises:
            UsageError: a run exists there and `overwrite` is False, or something else exists there.
        """
        if not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir())):
            return
        if not overwrite:
            raise UsageError(
                f"{self.path} exists; give another --output, --resume {self.path} to continue it, "
                "or --overwrite to start anew"
            )
        if not self.config.is_file():
            raise UsageError(f"{self.path} is no run directory, so --overwrite leaves it alone")

    def label_names(self) -> tuple[str, ...]:
        """The names of the labels that the network reads, in their order; none if it reads none."""
        if not self.labels.exists():
            return ()
        return tuple(json.loads(self.labels.read_text())["names"])

    def create(self) -> None:
        """Makes the directory, after removing an earlier run in it."""
        if self.path.exists():
            shutil.rmtree(self.path)
        self.samples.mkdir(parents=True)


def first_argument(argv: Sequence[str], usage: str) -> RunDirectory:
    """The run directory that a command line names first.

    Raises:
        UsageError: the first word is no directory, or the directory holds no run.
    """
    if not argv or argv[0].startswith("-"):
        raise UsageError(f"name the run directory first: {usage}; {usage} --help lists the options")
    return RunDirectory.existing(argv[0])
