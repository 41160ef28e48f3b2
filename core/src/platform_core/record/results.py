"""`result.json`: the figures that a run ended with, and every later evaluation of it.

    evaluations/NAME.json  ->  result.json: {"format": 2, ..., "evaluations": {NAME: {...}}}

The name of a file follows the card: readable words and, where those do not say everything, a digest
of the facts that differ from those of the run's own result (`file_name`). Files with older names
are read too. The files in `evaluations/` are authoritative, so that two measurements at once lose
nothing. Standard errors are in nats per token. Format 1, which did not hold its number, had the
run's own standard error in bits per token; it is converted when it is read. Written by
`platform run` and `platform eval`; read by `platform compare` and `platform report`.
"""

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from platform_core.errors import UsageError
from platform_core.record.cards import RESULT, Measurement, Record
from platform_core.record.directory import RunDirectory
from platform_core.record.files import ReadError, digest_of, json_text, read_json, write_json
from platform_core.record.locks import locked
from platform_core.record.progress import command

EVALUATIONS = "evaluations"

NO_WAY = (
    *("kind", "units", "python", "system", "packages", "processes", "threads"),
    *("seconds_per_item", "evaluate.on_the_way", "asked"),
)
"""Places of a card that do not say how its figures were made, or that change none of them."""
FORMAT = 2


def write_result(directory: RunDirectory, result: Mapping[str, Any]) -> None:
    """Writes the result of a run, with the run's saved evaluations."""
    if not directory.evaluations.exists():
        write_json(directory.result, {"format": FORMAT, **result})
        return
    with _alone(directory):
        _write(directory, result)


def keep_evaluation(
    directory: RunDirectory, name: str, record: Record, in_name: Sequence[str] = ()
) -> Path:
    """Writes one measurement of a run, and replaces an earlier one that was made alike.

    Args:
        directory: the run directory.
        name: words for the name of the file: what was measured, and how.
        record: the figures and their card.
        in_name: places of the card that the words say.
    """
    try:
        own = read_result(directory).get("card", {})
    except ReadError:
        own = {}  # said below
    kept = directory.evaluations / f"{file_name(name, record, own, in_name)}.json"
    with _alone(directory):
        write_json(kept, record.to_dict())
        try:
            _write(directory, read_result(directory))
        except ReadError as error:
            _warn(f"{error}; {kept} has what was measured, result.json is left as it is")
    return kept


def file_name(
    words: str, record: Record, own: Mapping[str, Any], in_name: Sequence[str] = ()
) -> str:
    """The words, and a digest of what they leave open; no two ways to measure have the same.

    Args:
        words: what was measured and how.
        record: the measurement.
        own: the card of the run's own result.
        in_name: places of the card that the words say.
    """
    usual = dict(_places(own))
    facts = json.loads(json_text(record.card.facts))
    differ = {
        place: value
        for place, value in _places(facts)
        if place not in (*NO_WAY, *in_name)
        and place.partition(".")[0] not in NO_WAY
        and value != usual.get(place)
    }
    return f"{words}-{digest_of(differ)[:8]}" if differ else words


def _places(facts: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Every fact that is no mapping, by its place such as `evaluate.split`."""
    for key, value in facts.items():
        if isinstance(value, Mapping):
            yield from _places(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def read_result(directory: RunDirectory) -> dict[str, Any]:
    """The result of a run, in the present format; empty if the run has not ended.

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
            f"the run again with `{command('eval', directory.path)}`, in a copy without result.json"
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
    """All measurements of a run: the one at its end first, then its evaluations by name.

    Args:
        directory: the run directory.
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
    """Converts a result of format 1: its standard error from bits to nats per token."""
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
