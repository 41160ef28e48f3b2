"""The tracker: where a run is shown while it trains.

    RUN/new-part/metrics.csv      step,name,value       RUN/new-part/NAME-STEP.txt    samples

`platform run --track.to new-part` opens it, tells it what metrics.jsonl records, and closes it.
What it raises costs the run one warning.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self, final

from platform_core.record.directory import BETWEEN_SAMPLES, RunDirectory
from platform_core.record.tracker import About, Tracker

HEAD = ("step", "name", "value")


@final
class NewPart(Tracker):
    """A table of numbers, and samples as files beside it.

    Args:
        folder: where; made if missing.
        step: rows of later steps are dropped, because a resumed run writes them again.
    """

    title = "new-part"

    def __init__(self, folder: Path, step: int) -> None:
        folder.mkdir(exist_ok=True)
        self._folder, path = folder, folder / "metrics.csv"
        kept = [row for row in rows(path) if int(row[0]) <= step]
        self._stream = path.open("w", encoding="utf-8", newline="")
        self._table = csv.writer(self._stream)
        self._table.writerows([HEAD, *kept])

    @classmethod
    def open(cls, directory: RunDirectory, about: About, identity: str | None) -> Self:
        """A table in the run directory, or more of it."""
        return cls(directory.path / "new-part", about.step)

    @property
    def identity(self) -> str | None:
        """None: what lies in the run directory is found without one."""
        return None

    def log(self, metrics: Mapping[str, float], *, step: int, subset: str) -> None:
        """A row for each number."""
        self._table.writerows([step, f"{subset}/{name}", metrics[name]] for name in metrics)
        self._stream.flush()

    def text(self, name: str, samples: Sequence[str], *, step: int) -> None:
        """A file for all samples of a step."""
        path = self._folder / f"{name}-{step:07d}.txt"
        path.write_text(BETWEEN_SAMPLES.join(samples) + "\n", encoding="utf-8")

    def figure(self, path: Path, *, step: int) -> None:
        """A table has no place for figures, which are in the run directory anyway."""

    def close(self) -> None:
        """Closes the table."""
        self._stream.close()


def rows(path: Path) -> list[list[str]]:
    """The whole rows of a table without its head; none of a missing file."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        return [row for row in csv.reader(stream) if len(row) == len(HEAD)][1:]
