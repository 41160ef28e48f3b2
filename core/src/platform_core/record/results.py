"""`result.json`: the figures that a run ended with, and every later evaluation of it.

    evaluations/NAME.json  ->  result.json: {"format": 2, ..., "evaluations": {NAME: {...}}}

The files in `evaluations/` are the truth, so that two measurements at once lose nothing. Errors are
in nats per token. Format 1, which did not say its number, had the run's own error in bits per
token; it is converted when it is read. Written by `platform run` and `platform eval`; read by
`platform compare` and `platform report`.
"""

import math
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from platform_core.errors import UsageError
from platform_core.record.cards import RESULT, Measurement, Record
from platform_core.record.directory import RunDirectory
from platform_core.record.files import ReadError, read_json, write_json
from platform_core.record.locks import locked

EVALUATIONS = "evaluations"
FORMAT = 2


def write_result(directory: RunDirectory, result: Mapping[str, Any]) -> None:
    """Writes the result of a run, with the evaluations of it that are kept already."""
    if not directory.evaluations.exists():
        write_json(directory.result, {"format": FORMAT, **result})
        return
    with _alone(directory):
        _write(directory, result)


def keep_evaluation(directory: RunDirectory, name: str, record: Record) -> Path:
    """Writes one measurement of a run, in place of an earlier one of its name.

    Args:
        directory: of the run.
        name: what was measured and how, fit for a file name.
        record: the figures, and how they were made.
    """
    kept = directory.evaluations / f"{name}.json"
    with _alone(directory):
        write_json(kept, record.to_dict())
        try:
            _write(directory, read_result(directory))
        except ReadError as error:
            _warn(f"{error}; {kept} has what was measured, result.json is left as it is")
    return kept


def read_result(directory: RunDirectory) -> dict[str, Any]:
    """The result of a run, in the present format; empty where the run has not ended.

    Raises:
        ReadError: it is damaged.
        UsageError: a later version of the platform wrote it.
    """
    if not directory.result.exists():
        return {}
    result = read_json(directory.result)
    if not isinstance(result.get("card", {}), dict):
        raise ReadError(f"{directory.result} is damaged: its card is no object of JSON")
    written = result.pop("format", 1)
    if written == 1:
        return _converted(result)
    if written != FORMAT:
        raise UsageError(
            f"{directory.result} has format {written}, and this version reads {FORMAT}; measure "
            f"the run again with `platform eval {directory.path}`, in a copy without result.json"
        )
    return result


def evaluations(directory: RunDirectory) -> dict[str, Any]:
    """Every measurement of a run by name, as plain values; one that is damaged is left out and
    warned of.
    """
    found = {}
    for path in sorted(directory.evaluations.glob("*.json")):
        try:
            found[path.stem] = read_json(path)
        except ReadError as error:
            _warn(f"{error}; it is left out")
    return found


def measurements(directory: RunDirectory, run: str) -> list[Measurement]:
    """Everything measured of a run: at its end first, then its evaluations by name.

    Args:
        directory: of the run.
        run: what the run is called in tables and messages.

    Raises:
        UsageError: the result is damaged, or of a later version of the platform.
    """
    result = read_result(directory)
    copied = result.pop(EVALUATIONS, {})
    kept = {**(copied if isinstance(copied, dict) else {}), **evaluations(directory)}
    ended = {RESULT: result} if "card" in result else {}
    return [
        Measurement(run, name, Record.read(values))
        for name, values in [*ended.items(), *sorted(kept.items())]
    ]


def _converted(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result of format 1 in the present one: its error in nats per token, not in bits."""
    made = dict(result)
    if result.get("standard_error") is not None:
        made["standard_error"] = result["standard_error"] * math.log(2)
    card = result.get("card", {})
    if "units" in card:
        units = card["units"].replace("standard_error in bits", "standard_error in nats")
        made["card"] = {**card, "units": units}
    return made


def _write(directory: RunDirectory, result: Mapping[str, Any]) -> None:
    measured = evaluations(directory)
    more = {EVALUATIONS: measured} if measured else {}
    write_json(directory.result, {"format": FORMAT, **result, **more})


def _warn(said: str) -> None:
    print(f"platform: warning: {said}", file=sys.stderr)


def _alone(directory: RunDirectory) -> AbstractContextManager[None]:
    return locked(directory.evaluations / ".lock")
