"""Comparison of runs: their numbers in one table, if they were measured alike.

    runs -> measurements -> settings that all runs share -> a table for each

A setting is what the first metric's numbers depend on (`cards`). Runs that share none are refused,
or marked in one table. Errors of differences take the two numbers as independent: that noise levels
and sequences are the same for both cannot be used, because records hold no numbers of single
sequences. Used by `platform compare`; no torch.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from platform_core.errors import UsageError
from platform_core.record.cards import (
    BOUNDS,
    ENTROPY,
    GENERATED,
    RESULT,
    UNSAID,
    Measurement,
    Metric,
    at,
    latest,
    noteworthy,
    shown,
    unlike,
    unsaid,
)
from platform_report.tables import Cell, Column, Notes, Nothing, Number, Table, Words

Runs = Mapping[str, Sequence[Measurement]]
"""Measurements by run, in the order asked for."""

DEFAULTS = (BOUNDS[:2], GENERATED)
"""What is shown if nothing is asked for: the first of each always, the others where alike."""

EXACT = "the value itself; those without this mark are upper bounds"
INDEPENDENT = (
    "Errors are standard errors; those of differences take the two numbers as independent."
)


def compare(runs: Runs, metrics: Sequence[Metric], *, mark: bool) -> list[Table]:
    """Tables of the metrics asked for, or of all that every run has.

    Args:
        runs: at least two.
        metrics: none for the usual ones.
        mark: put unlike numbers into one column, marked, where they would be refused.

    Raises:
        UsageError: a run has no such number, or runs have none that are alike.
    """
    families = [
        [metric for metric in family if metric in metrics] for family in (BOUNDS, GENERATED)
    ]
    if not metrics:
        families = [list(family) for family in DEFAULTS]
        families = [family for family in families if _lacking(runs, family[0]) is None]
        if not families:
            _require(runs, BOUNDS[0])
    tables = []
    for family in filter(None, families):
        for metric in family if metrics else family[:1]:
            _require(runs, metric)
        build = _bounds if family[0] in BOUNDS else _generated
        for chosen in _settings(runs, family[0], mark=mark):
            tables.append(build(chosen, family, asked=bool(metrics), mark=mark))
    return tables


def difference(number: Number, reference: Number) -> Number:
    """A number minus another one; the error is known if both are, and independent."""
    spreads = number.spread, reference.spread
    known = spreads[0] is not None and spreads[1] is not None
    error = math.hypot(*(spread or 0.0 for spread in spreads)) if known else None
    return Number(number.value - reference.value, error)


def _lacking(runs: Runs, metric: Metric) -> str | None:
    """The first run without this number."""
    for run, found in runs.items():
        if not any(metric.value(measurement) is not None for measurement in found):
            return run
    return None


def _require(runs: Runs, metric: Metric) -> None:
    lacking = _lacking(runs, metric)
    if lacking is not None:
        raise UsageError(
            f"{lacking} has no {metric.name}; measure it with `platform eval {lacking}`, or leave "
            "the run out"
        )


def _settings(runs: Runs, metric: Metric, *, mark: bool) -> list[Runs]:
    """The measurements of every setting that all runs share; marked, the nearest there are."""
    by_run = {
        run: [found for found in measured if metric.value(found) is not None]
        for run, measured in runs.items()
    }
    shared = [
        setting
        for setting in dict.fromkeys(map(metric.setting, next(iter(by_run.values()))))
        if all(setting in map(metric.setting, found) for found in by_run.values())
    ]
    if shared:
        return [
            {
                run: [m for m in found if metric.setting(m) == setting]
                for run, found in by_run.items()
            }
            for setting in shared
        ]
    first, *others = by_run
    reference = by_run[first][0]
    nearest = {first: [m for m in by_run[first] if not metric.differences(m, reference)]}
    for run in others:
        closest = min(by_run[run], key=lambda m: len(metric.differences(m, reference)))
        nearest[run] = [m for m in by_run[run] if not metric.differences(m, closest)]
    if not mark:
        _refuse([latest(nearest[run]) for run in nearest], metric)
    return [nearest]


def _refuse(found: Sequence[Measurement], metric: Metric) -> None:
    """Says what the first two numbers that are unlike differ in, and what to do."""
    reference, *others = found
    for other in others:
        differences = metric.differences(other, reference)
        if differences:
            remedy = _remedy(differences, other, reference, metric)
            raise UsageError(
                f"{metric.name} of {other.run} does not belong in one column with {reference.run}: "
                f"{unlike(differences, reference.run)}; {remedy}--mark shows them with a mark"
            )
    raise AssertionError("numbers without differences share a setting")


def _remedy(
    differences: Mapping[str, tuple[object, object]],
    other: Measurement,
    reference: Measurement,
    metric: Metric,
) -> str:
    """What to do instead of marking, as the beginning of a sentence."""
    counts = {"tokens", "characters", "sequences"}
    options = [key for key in differences if key.startswith("evaluate.")]
    if options and not set(differences) - set(options) - counts:
        words = " ".join(f"--{key} {differences[key][1]}" for key in options)
        return f"`platform eval {other.run} {words}` measures it alike, and "
    if metric in BOUNDS[1:] and not BOUNDS[0].differences(other, reference):
        return f"--metric {BOUNDS[0].name} does not depend on it, and "
    return ""


def _bounds(chosen: Runs, metrics: Sequence[Metric], *, asked: bool, mark: bool) -> Table:
    """One row for each run, of the last and best measured of its numbers that are alike."""
    found = [latest(measured) for measured in chosen.values()]
    first, notes = found[0], Notes()
    shown, remarks = _alike(found, metrics, asked=asked, mark=mark)
    mixed = len({measurement.exact for measurement in found}) > 1
    columns = [Column("run", number=False)]
    for metric in shown:
        columns += [
            Column(metric.title, "standard error"),
            Column(f"Δ {metric.title}", "standard error"),
        ]
    rows: list[tuple[Cell, ...]] = []
    for measurement in found:
        cells: list[Cell] = [Words(measurement.run)]
        for metric in shown:
            number = _number(metric, measurement, first, notes, exact=mixed)
            reference = _number(metric, first, first, notes, exact=False)
            cells += [number, Nothing() if measurement is first else _minus(number, reference)]
        rows.append((*cells, _step(measurement)))
    columns.append(Column("step"))
    remarks = [f"Δ: minus {first.run}. {INDEPENDENT}", *remarks, *noteworthy(found)]
    return Table(title_of(first), tuple(columns), tuple(rows), notes.by_letter(), tuple(remarks))


def _generated(chosen: Runs, metrics: Sequence[Metric], *, asked: bool, mark: bool) -> Table:
    """A row for each run and way of sampling; generative perplexity never without entropy."""
    found = [measurement for measured in chosen.values() for measurement in measured]
    first, notes, names = found[0], Notes(), samplers(found)
    metrics = [*metrics, *([] if ENTROPY in metrics else [ENTROPY])]
    metrics = [m for m in metrics if any(m.value(measurement) is not None for measurement in found)]
    shown, remarks = _alike(found, metrics, asked=asked, mark=mark)
    columns = [Column("run", number=False), Column("sampler", number=False), Column("NFE")]
    columns += [Column(metric.title, "standard error") for metric in shown]
    columns += [Column("seconds"), Column("step")]
    rows = tuple(
        (
            Words(measurement.run),
            Words(names[way_of_sampling(measurement)]),
            recorded(measurement, "nfe"),
            *(_number(metric, measurement, first, notes, exact=False) for metric in shown),
            recorded(measurement, "seconds"),
            _step(measurement),
        )
        for measurement in found
    )
    remarks = [*controls(first), "Errors are standard errors.", *remarks, *noteworthy(found)]
    judge = first.fact("judge.name")
    title = "Generated text" if judge == UNSAID else f"Generated text, judged by {judge}"
    return Table(title, tuple(columns), rows, notes.by_letter(), tuple(remarks))


def _alike(
    found: Sequence[Measurement], metrics: Sequence[Metric], *, asked: bool, mark: bool
) -> tuple[list[Metric], list[str]]:
    """The metrics that may have a column, and what is to be said of the others and of the cards."""
    first, shown, remarks = found[0], [], []
    for metric in metrics:
        keys = dict.fromkeys(key for m in found for key in metric.differences(m, first))
        if keys and not mark and asked:
            _refuse(found, metric)
        if keys and not mark:
            remarks.append(f"No {metric.title}: its numbers are unlike in {', '.join(keys)}.")
        else:
            shown.append(metric)
    return shown, [*remarks, *unsaid(shown, first)]


def _minus(number: Cell, reference: Cell) -> Cell:
    if isinstance(number, Number) and isinstance(reference, Number):
        return difference(number, reference)
    return Nothing()


def _number(
    metric: Metric, measurement: Measurement, reference: Measurement, notes: Notes, *, exact: bool
) -> Cell:
    value = metric.value(measurement)
    if value is None:
        return Nothing()
    marks = []
    differences = metric.differences(measurement, reference)
    if differences:
        marks.append(notes.mark(f"{metric.title}: {unlike(differences, reference.run)}"))
    if exact and measurement.exact:
        marks.append(notes.mark(EXACT))
    return Number(value, metric.error(measurement), tuple(marks))


def recorded(measurement: Measurement, name: str) -> Cell:
    """A number of the record as it is."""
    value = measurement.record.get(name)
    return Nothing() if value is None else Number(value)


def samplers(found: Sequence[Measurement]) -> Mapping[str, str]:
    """How each of some samples was drawn, by `way_of_sampling`.

    The sampler, its steps, and what else varies among the samples of one sampler.
    """
    ways = {way_of_sampling(measurement): _options(measurement) for measurement in found}
    values: dict[tuple[str, str], set[str]] = {}
    for options in ways.values():
        for key, value in options.items():
            values.setdefault((str(options.get("name")), key), set()).add(shown(value))
    return {
        way: ", ".join(
            [str(options.get("name", "unknown sampler"))]
            + [
                f"{key} {shown(value)}"
                for key, value in options.items()
                if key != "name"
                and (key == "steps" or len(values[str(options.get("name")), key]) > 1)
            ]
        )
        for way, options in ways.items()
    }


def way_of_sampling(measurement: Measurement) -> str:
    """The same for samples that were drawn alike."""
    return repr(sorted(_options(measurement).items()))


def controls(measurement: Measurement) -> list[str]:
    """What the judge says of real text and of the same in disorder, to hold samples against."""
    lines = []
    for kind in ("real", "shuffled"):
        perplexity = at(measurement.record, f"{kind}.perplexity")
        entropy = at(measurement.record, f"{kind}.entropy")
        if UNSAID not in (perplexity, entropy):
            lines.append(
                f"{kind.capitalize()} text: perplexity {perplexity:.4g}, entropy {entropy:.4g}."
            )
    return lines


def _options(measurement: Measurement) -> dict[str, Any]:
    sampler, guidance = measurement.fact("sampler"), measurement.fact("sample.guidance")
    known = dict(sampler) if isinstance(sampler, Mapping) else {}
    return known if guidance == UNSAID else {**known, "guidance": guidance}


def _step(measurement: Measurement) -> Cell:
    step = measurement.fact("step")
    return Nothing() if step == UNSAID else Number(step)


def title_of(measurement: Measurement) -> str:
    """What the numbers of a table are of."""
    facts = [measurement.fact(key) for key in ("data.corpus", "evaluate.split")]
    how = [measurement.fact(key) for key in ("evaluate.protocol", "evaluate.weights")]
    if UNSAID in (*facts, *how):
        return "At the end of training" if measurement.name == RESULT else measurement.name
    return f"{facts[0]}, {facts[1]} text: {how[0]} protocol, {how[1]} weights"
