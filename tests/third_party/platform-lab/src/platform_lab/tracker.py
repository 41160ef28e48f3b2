"""A run's numbers and samples as CSV files, for a spreadsheet.

    csv/numbers.csv   step, subset, name, value
    csv/texts.csv     step, name, number, text

Rows of one step are written when the next begins, so that a repeated number replaces the first.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

from platform_core.record.directory import RunDirectory
from platform_core.record.tracker import About, Tracker


class Table:
    """One file whose first column is the step.

    Args:
        path: of the file; what it has of steps up to `kept` stays.
        head: the names of the columns.
        keys: how many columns tell rows of one step apart.
        kept: the last step that is known to be right.
    """

    def __init__(self, path: Path, head: Sequence[str], *, keys: int, kept: int) -> None:
        self.keys, self.step = keys, kept
        self.rows: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        known: list[list[str]] = []
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                known = [row for row in list(csv.reader(file))[1:] if int(row[0]) <= kept]
        self.file = path.open("w", newline="", encoding="utf-8")
        self.writer = csv.writer(self.file)
        self.writer.writerows([head, *known])

    def add(self, step: int, *row: Any) -> None:
        """Adds a row, or replaces that of the same step and keys."""
        if step != self.step:
            self.flush()
            self.step = step
        self.rows[row[: self.keys]] = row

    def flush(self) -> None:
        """Writes the rows of the current step."""
        self.writer.writerows((self.step, *row) for row in self.rows.values())
        self.rows.clear()
        self.file.flush()


@final
class Csv(Tracker):
    """CSV files in a folder of the run's directory.

    Args:
        folder: of the files; it is made if it is missing.
        kept: the last step whose rows stay.
    """

    title = "CSV"

    def __init__(self, folder: Path, kept: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        numbers, texts = ("step", "subset", "name", "value"), ("step", "name", "number", "text")
        self.numbers = Table(folder / "numbers.csv", numbers, keys=2, kept=kept)
        self.texts = Table(folder / "texts.csv", texts, keys=2, kept=kept)

    @classmethod
    def open(cls, directory: RunDirectory, about: About, identity: str | None) -> "Csv":
        """Begins the files, or goes on with those that are there."""
        return cls(directory.path / (identity or "csv"), about.step)

    @property
    def identity(self) -> str | None:
        """The folder's name."""
        return self.folder.name

    def log(self, metrics: Mapping[str, float], *, step: int, subset: str) -> None:
        """A row for each number."""
        for name, value in metrics.items():
            self.numbers.add(step, subset, name, value)

    def text(self, name: str, samples: Sequence[str], *, step: int) -> None:
        """A row for each sample."""
        for number, sample in enumerate(samples):
            self.texts.add(step, name, number, sample)

    def figure(self, path: Path, *, step: int) -> None:
        """Nothing: figures are in the run's directory already."""

    def close(self) -> None:
        """Writes what is left."""
        for table in (self.numbers, self.texts):
            table.flush()
            table.file.close()
