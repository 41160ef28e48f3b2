"""`result.json`: what a run ended with, and everything that was measured of it afterwards.

    evaluations/NAME.json  ->  result.json: {..., "evaluations": {NAME: {..., "card": {...}}}}

The files are the truth, so that two measurements at once lose nothing. Written by `platform run`
and `platform eval`; read by `platform compare` and `platform report`.
"""

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from platform_core.record.directory import RunDirectory
from platform_core.record.files import write_json
from platform_core.record.locks import locked

EVALUATIONS = "evaluations"


def write_result(directory: RunDirectory, result: Mapping[str, Any]) -> None:
    """Writes what a run ended with, beside what is known of it already."""
    if not directory.evaluations.exists():
        write_json(directory.result, result)
        return
    with _alone(directory):
        _write(directory, result)


def keep_evaluation(directory: RunDirectory, name: str, record: Mapping[str, Any]) -> Path:
    """Writes one measurement of a run, in place of an earlier one of its name.

    Args:
        directory: of the run.
        name: what was measured and how, fit for a file name.
        record: the numbers by name, and under `card` how they were made.
    """
    kept = directory.evaluations / f"{name}.json"
    with _alone(directory):
        write_json(kept, record)
        _write(directory, read_result(directory))
    return kept


def read_result(directory: RunDirectory) -> dict[str, Any]:
    """The result of a run; nothing of one that has not ended."""
    return json.loads(directory.result.read_text()) if directory.result.exists() else {}


def evaluations(directory: RunDirectory) -> dict[str, Any]:
    """Every measurement of a run by name."""
    files = sorted(directory.evaluations.glob("*.json"))
    return {path.stem: json.loads(path.read_text()) for path in files}


def _write(directory: RunDirectory, result: Mapping[str, Any]) -> None:
    measured = evaluations(directory)
    more = {EVALUATIONS: measured} if measured else {}
    write_json(directory.result, {**result, **more})


def _alone(directory: RunDirectory) -> AbstractContextManager[None]:
    return locked(directory.evaluations / ".lock")
