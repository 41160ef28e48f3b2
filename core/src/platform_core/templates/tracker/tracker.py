"""The tracker: shows a run while it trains.

    RUN/new-part/metrics.csv      step,name,value       RUN/new-part/NAME-STEP.txt    samples

`platform run --track.to new-part` opens the tracker, passes it the numbers of metrics.jsonl, and
closes it. If the tracker raises an error, the run prints one warning and continues.
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
        folder: folder of the files; made if missing.
        step: last step to keep; later rows are dropped, because a resumed run writes them again.
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
        """Open the table of a run directory; a resumed run continues its table."""
        return cls(directory.path / "new-part", about.step)

    @property
    def identity(self) -> str | None:
        """None: the files in the run directory are found without an identity."""
        return None

    def log(self, metrics: Mapping[str, float], *, step: int, subset: str) -> None:
        """Write a row for each number."""
        self._table.writerows([step, f"{subset}/{name}", metrics[name]] for name in metrics)
        self._stream.flush()

    def text(self, name: str, samples: Sequence[str], *, step: int) -> None:
        """Write all samples of a step to one file."""
        path = self._folder / f"{name}-{step:07d}.txt"
        path.write_text(BETWEEN_SAMPLES.join(samples) + "\n", encoding="utf-8")

    def figure(self, path: Path, *, step: int) -> None:
        """Ignore the figure: a table has no place for it, and the run directory has it anyway."""

    def close(self) -> None:
        self._stream.close()


def rows(path: Path) -> list[list[str]]:
    """The complete rows of a table without its head; none if the file is missing."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        return [row for row in csv.reader(stream) if len(row) == len(HEAD)][1:]
