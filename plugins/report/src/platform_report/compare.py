"""Comparison of runs: their numbers in one table, if they were measured alike.

    runs -> measurements -> settings that all runs share -> a table for each

A setting is what a metric's numbers depend on (`platform_core.record.cards`). Runs that share no
setting are refused, or marked in one table. The error of a difference takes its two numbers as
independent: a comparison cannot use the fact that both were measured on the same sequences and
noise levels, because records hold no numbers of single sequences. Used by `platform compare`;
imports no torch.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from platform_core.errors import UsageError
from platform_core.record.bounds import BOUND, BOUNDS, NO_BOUND
from platform_core.record.cards import (
    UNSAID,
    Family,
    Measurement,
    Metric,
    families,
    latest,
    leading,
    noteworthy,
    shown,
    silent,
    unlike,
)
from platform_report.tables import Cell, Column, Notes, Nothing, Number, Table, Words

Runs = Mapping[str, Sequence[Measurement]]
"""Measurements of each run, in the order of the command line."""

EXACT = "the value itself; numbers without this mark are upper bounds"
INDEPENDENT = (
    "Errors are standard errors; errors of differences take the two numbers as independent."
)


def compare(runs: Runs, metrics: Sequence[Metric], *, asked: bool, mark: bool) -> list[Table]:
    """Tables of metrics, one for each family and each setting that all runs share.

    Args:
        runs: at least two runs with their measurements.
        metrics: metrics that may be shown.
        asked: whether a user named the metrics, so that each must be shown; else metrics that some
            run lacks, or that were measured unlike, are left out.
        mark: put unlike numbers into one column and mark them, instead of refusing them.

    Raises:
        UsageError: a run lacks a metric, or the runs share no setting.
    """
    found, bounded = families(metrics), _bounded(runs)
    if not bounded and BOUND in found:
        if asked or len(found) == 1:
            raise UsageError(
                f"the objectives of {', '.join(runs)} say that they have no bound on -log p; "
                "compare other metrics of them with --metric"
            )
        del found[BOUND]
    having = {family: bounded if family is BOUND else runs for family in found}
    for metric in metrics if asked else ():
        _require(having[metric.family], metric)
    if not asked:
        found = {family: own for family, own in found.items() if not _lacking(having[family], own)}
        if not found:
            _require(bounded, BOUNDS[0])
    tables = []
    for family, own in found.items():
        build = _by_sampler if family.by_sampler else _by_run
        for chosen in _settings(having[family], own, mark=mark):
            table = build(chosen, family, own, asked=asked, mark=mark)
            tables.append(_with_dashes(table, [run for run in runs if run not in having[family]]))
    return tables


def _bounded(runs: Runs) -> Runs:
    """The runs whose objective does not say that it has no bound."""
    return {
        run: measured
        for run, measured in runs.items()
        if all(m.fact("kind") != NO_BOUND for m in measured)
    }


def _with_dashes(table: Table, lacking: Sequence[str]) -> Table:
    """The table with an empty row for each run that has no such numbers."""
    if not lacking:
        return table
    empty = [Nothing()] * (len(table.columns) - 1)
    rows = (*table.rows, *((Words(run), *empty) for run in lacking))
    remark = f"{', '.join(lacking)}: the objective has no bound on -log p."
    return replace(table, rows=rows, remarks=(*table.remarks, remark))


def difference(number: Number, reference: Number) -> Number:
    """A number minus another one; the error is known if both errors are, as if independent."""
    spreads = number.spread, reference.spread
    known = spreads[0] is not None and spreads[1] is not None
    error = math.hypot(*(spread or 0.0 for spread in spreads)) if known else None
    return Number(number.value - reference.value, error)


def _lacking(runs: Runs, metrics: Sequence[Metric]) -> str:
    """The first run that has none of the metrics; empty if every run has one."""
    for run, found in runs.items():
        if not any(leading(metrics, measurement) for measurement in found):
            return run
    return ""


def _require(runs: Runs, metric: Metric) -> None:
    lacking = _lacking(runs, [metric])
    if lacking:
        raise UsageError(
            f"{lacking} has no {metric.name}; measure it with `{metric.command(lacking)}`, or "
            "leave the run out"
        )


def _settings(runs: Runs, metrics: Sequence[Metric], *, mark: bool) -> list[Runs]:
    """The measurements of every setting that all runs share; else the nearest measurements."""
    first_metrics = {
        run: {m.name: metric for m in found if (metric := leading(metrics, m))}
        for run, found in runs.items()
    }
    by_run = {
        run: [m for m in found if m.name in first_metrics[run]] for run, found in runs.items()
    }
    settings = {
        run: [first_metrics[run][m.name].setting(m) for m in found] for run, found in by_run.items()
    }
    shared = [
        setting
        for setting in dict.fromkeys(next(iter(settings.values())))
        if all(setting in own for own in settings.values())
    ]
    if not shared:
        return [_nearest(by_run, metrics, mark=mark)]
    return [
        {
            run: [m for m, own in zip(by_run[run], settings[run], strict=True) if own == setting]
            for run in by_run
        }
        for setting in shared
    ]


def _nearest(by_run: Runs, metrics: Sequence[Metric], *, mark: bool) -> Runs:
    """The measurements of each run that differ least from the first of the first run.

    Cards that say every fact come before cards that do not.

    Raises:
        UsageError: `mark` is false; the message says how the measurements differ.
    """
    first, *others = by_run
    reference = min(by_run[first], key=lambda m: _silent(m, metrics))
    metric = leading(metrics, reference) or metrics[0]
    nearest = {first: [m for m in by_run[first] if not metric.differences(m, reference)]}
    for run in others:
        closest = min(
            by_run[run],
            key=lambda m: (_silent(m, metrics), len(metric.differences(m, reference))),
        )
        nearest[run] = [m for m in by_run[run] if not metric.differences(m, closest)]
    if not mark:
        _refuse([latest(nearest[run]) for run in nearest], metric)
    return nearest


def _silent(measurement: Measurement, metrics: Sequence[Metric]) -> bool:
    """Whether the card of a measurement lacks a fact that its number depends on.

    A run that was measured again, as `_remedy` says, also has a measurement that lacks none.
    """
    metric = leading(metrics, measurement)
    return metric is not None and bool(silent(metric, [measurement]))


def _refuse(found: Sequence[Measurement], metric: Metric) -> None:
    """Raise an error that says how the first two unlike numbers differ, and what to do."""
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
    """Advice that avoids marks, as the beginning of a sentence; empty if there is none."""
    lines = silent(metric, [reference, other])
    if lines:
        return "".join(f"{line[0].lower()}{line[1:].removesuffix('.')}; " for line in lines)
    counts = {"tokens", "characters", "sequences"}
    options = [key for key in differences if key.startswith("evaluate.")]
    if options and not set(differences) - set(options) - counts:
        words = " ".join(f"--{key} {differences[key][1]}" for key in options)
        return f"`{metric.command(other.run)} {words}` measures it alike, and "
    if metric in BOUNDS[1:] and not BOUNDS[0].differences(other, reference):
        return f"--metric {BOUNDS[0].name} does not depend on it, and "
    return ""


def _by_run(
    chosen: Runs, family: Family, metrics: Sequence[Metric], *, asked: bool, mark: bool
) -> Table:
    """A table with one row for each run: its latest and best measured numbers that are alike."""
    found = [latest(measured) for measured in chosen.values()]
    first, notes = found[0], Notes()
    shown, remarks = _alike(found, _measured(metrics, found), asked=asked, mark=mark)
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
    remarks = [f"Δ: minus {first.run}. {INDEPENDENT}", *family.remarks(first), *remarks]
    remarks += noteworthy(found, family.noted)
    return Table(
        family.title(first), tuple(columns), tuple(rows), notes.by_letter(), tuple(remarks)
    )


def _by_sampler(
    chosen: Runs, family: Family, metrics: Sequence[Metric], *, asked: bool, mark: bool
) -> Table:
    """A table with one row for each run and way of sampling."""
    found = [measurement for measured in chosen.values() for measurement in measured]
    first, notes, names = found[0], Notes(), samplers(found)
    shown, remarks = _alike(found, _measured(metrics, found), asked=asked, mark=mark)
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
    remarks = [*family.remarks(first), "Errors are standard errors.", *remarks]
    remarks += noteworthy(found, family.noted)
    return Table(family.title(first), tuple(columns), rows, notes.by_letter(), tuple(remarks))


def _measured(metrics: Sequence[Metric], found: Sequence[Measurement]) -> list[Metric]:
    """The metrics of which any of the measurements has a number."""
    return [metric for metric in metrics if any(leading([metric], m) for m in found)]


def _alike(
    found: Sequence[Measurement], metrics: Sequence[Metric], *, asked: bool, mark: bool
) -> tuple[list[Metric], list[str]]:
    """The metrics that get a column, and remarks on other metrics and on cards that lack facts."""
    first, shown, remarks = found[0], [], []
    for metric in metrics:
        keys = dict.fromkeys(key for m in found for key in metric.differences(m, first))
        if keys and not mark and asked:
            _refuse(found, metric)
        if keys and not mark:
            remarks.append(f"No {metric.title}: its numbers are unlike in {', '.join(keys)}.")
        else:
            shown.append(metric)
    lacking = [line for metric in shown for line in silent(metric, found)]
    return shown, [*remarks, *dict.fromkeys(lacking)]


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
    """A number of the record as a cell, unchanged."""
    value = measurement.record.figures.get(name)
    return Nothing() if value is None else Number(value)


def samplers(found: Sequence[Measurement]) -> Mapping[str, str]:
    """A description of each way of sampling, by `way_of_sampling`.

    The description has the sampler, its steps, and all options that vary among the samples of one
    sampler.
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
    """A key that is equal for samples that were drawn alike."""
    return repr(sorted(_options(measurement).items()))


def _options(measurement: Measurement) -> dict[str, Any]:
    sampler, guidance = measurement.fact("sampler"), measurement.fact("sample.guidance")
    known = dict(sampler) if isinstance(sampler, Mapping) else {}
    return known if guidance == UNSAID else {**known, "guidance": guidance}


def _step(measurement: Measurement) -> Cell:
    step = measurement.fact("step")
    return Nothing() if step == UNSAID else Number(step)
