"""The record of a run: `metrics.jsonl`, one JSON object per line.

    {"step": 10, "subset": "train", "time": 1.25, "loss": 4.61}

`time` is the running time in seconds; a resumed run continues it. JSON has no NaN and no infinity:
they are written as "NaN", "Infinity" and "-Infinity", and `read` turns them back into numbers. A
record counts once its newline is written, so a killed run loses at most the line it was writing.
This file is authoritative; trackers only show its numbers.
"""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from platform_core.errors import UsageError
from platform_core.record.files import write_bytes

LABELS = ("step", "subset", "time")
"""Fields that every record has besides its metrics."""

FINAL = "final"
"""The subset of the bound that a run ends with."""

NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class MetricsLog:
    """Appends records to a file; a record is passed to the operating system before `log` returns.

    Args:
        path: the file; made if missing.
        elapsed: seconds that the run has already been running.
    """

    def __init__(self, path: Path, *, elapsed: float = 0.0) -> None:
        self._stream = path.open("a", encoding="utf-8")
        self._start = time.monotonic() - elapsed

    @classmethod
    def resume(cls, path: Path, step: int) -> "MetricsLog":
        """Continues the record of a run from its checkpoint at `step`.

        Later records, those of the end (which is still to come, or comes again) and a torn last
        line are dropped, so the resumed run's record equals the uninterrupted one's apart from
        times. For that, the checkpoint of a step has to be written after the step's records.

        Raises:
            UsageError: a line other than the last is no record, or the file cannot be written.
        """
        lines = [
            (line, record)
            for line, record in _records(path)
            if record["step"] <= step and record["subset"] != FINAL
        ]
        write_bytes(path, b"".join(line for line, _ in lines))
        return cls(path, elapsed=lines[-1][1]["time"] if lines else 0.0)

    def log(self, metrics: Mapping[str, float], *, step: int, subset: str) -> None:
        """Appends the metrics of one subset (train, validation, ...) at one step."""
        assert not metrics.keys() & set(LABELS), f"{LABELS} are no names of metrics"
        seconds = round(time.monotonic() - self._start, 3)
        record = {"step": step, "subset": subset, "time": seconds}
        record |= {name: _plain(value) for name, value in metrics.items()}
        self._stream.write(json.dumps(record, allow_nan=False) + "\n")
        self._stream.flush()

    def close(self) -> None:
        self._stream.close()


def read(path: Path) -> list[dict[str, Any]]:
    """The records of a run, oldest first, without a torn last line.

    Raises:
        UsageError: a line other than the last is no record.
    """
    return [
        {key: value if key in LABELS else _number(value) for key, value in record.items()}
        for _, record in _records(path)
    ]


def _records(path: Path) -> list[tuple[bytes, dict[str, Any]]]:
    """Whole lines with the records in them; an empty list if the file is missing."""
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    whole = [line for line in lines if line.endswith(b"\n")]
    return [(line, _parse(line, f"{path}:{number}")) for number, line in enumerate(whole, 1)]


def _parse(line: bytes, place: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
        missing = set(LABELS) - record.keys()
    except (ValueError, AttributeError, RecursionError) as error:
        raise UsageError(
            f"{place} is no record of metrics ({error}); repair or remove the line"
        ) from error
    if missing:
        raise UsageError(f"{place} is no record of metrics: it has no {', '.join(sorted(missing))}")
    if type(record["step"]) is not int or type(record["time"]) not in (int, float):
        raise UsageError(f"{place} is no record of metrics: its step or time is no number")
    if not isinstance(record["subset"], str):
        raise UsageError(f"{place} is no record of metrics: its subset is no text")
    return dict(record)


def _plain(value: float) -> float | str:
    number = value if isinstance(value, int) else float(value)
    if math.isfinite(number):
        return number
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


def _number(value: Any) -> Any:
    return NON_FINITE.get(value, value) if isinstance(value, str) else value
