"""The tables of a report: a row for each combination of labels, averaged over seeds.

    mean ± sample standard deviation over seeds;  Δ and p against a baseline, if one is named

A row with the same seeds as its baseline is compared in pairs, because a seed decides the order of
the data and the noise of the evaluation in both; other rows are compared by Welch's t. A p-value
needs two seeds on each side.
"""

import os
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from platform_core.record.bounds import BOUND, BOUNDS
from platform_core.record.cards import (
    RESULT,
    Family,
    Measurement,
    Metric,
    Setting,
    families,
    latest,
    leading,
    silent,
    unlike,
)
from platform_report.compare import EXACT, recorded, samplers, way_of_sampling
from platform_report.reading import Group, Labels, Sweep, Trial
from platform_report.significance import Significance, deviation, holm, mean, paired, welch
from platform_report.tables import Cell, Column, Notes, Nothing, Number, Probability, Table, Words

FOLDER = "report"
"""Folder of the report in a sweep's directory."""

SPREAD = "standard deviation"
BYTES = 1e9

Found = Mapping[str, Measurement]
"""One measurement of each trial that has one, by the trial's name."""


@dataclass(frozen=True)
class Row:
    """One line of a table before it is written: a group, its way of sampling, and measurements."""

    group: Group
    sampler: str
    found: Found

    def values(self, metric: Metric) -> dict[str, float]:
        """The metric by seed, or by trial if no axis is the seed."""
        given = {
            trial.seed or trial.name: metric.value(self.found[trial.name])
            for trial in self.group.trials
            if trial.name in self.found
        }
        return {seed: value for seed, value in given.items() if value is not None}

    def figures(self, name: str) -> list[float]:
        """The number with this name in each record that has it."""
        return [n for m in self.found.values() if (n := m.figure(name)) is not None]


def tables(
    sweep: Sweep, metrics: Sequence[Metric], asked: Labels, dashboard: str
) -> dict[str, Table]:
    """All tables by a name fit for a file: results, further evaluations, samples and trials.

    Args:
        sweep: sweep in its present state.
        metrics: metrics to show; the first of each family is tested.
        asked: labels of the baseline; empty for no comparison.
        dashboard: address of Aim's interface, for links.
    """
    made = {}
    for family, own in families(metrics).items():
        if family == BOUND:
            made["results"] = _results(sweep, own, asked)
        if family.by_sampler:
            for number, rows in enumerate(sampled(sweep, own), 1):
                made[f"{family.name}-{number}"] = _samples(sweep, family, own, asked, rows)
        else:
            ended = family != BOUND  # The table of results has the bounds at the end of training.
            for number, found in enumerate(further(sweep, own, ended=ended), 1):
                made[f"{family.name}-{number}"] = _further(sweep, family, own, asked, found)
    made["trials"] = _trials(sweep, dashboard)
    return made


def ends(sweep: Sweep) -> Found:
    """The measurement of each trial at the end of its training."""
    return {trial.name: trial.result for trial in sweep.trials if trial.result is not None}


def further(sweep: Sweep, metrics: Sequence[Metric], *, ended: bool) -> list[Found]:
    """Evaluations that have one of the metrics; each mapping holds evaluations that are alike.

    Args:
        sweep: sweep in its present state.
        metrics: metrics of one family.
        ended: whether the measurement at the end of training is included.
    """
    by_setting: dict[Setting, dict[str, list[Measurement]]] = {}
    for trial in sweep.trials:
        for measurement in trial.measured:
            metric = leading(metrics, measurement)
            if metric is not None and (ended or measurement.name != RESULT):
                alike = by_setting.setdefault(metric.setting(measurement), {})
                alike.setdefault(trial.name, []).append(measurement)
    return [
        {name: latest(found) for name, found in trials.items()} for trials in by_setting.values()
    ]


def sampled(sweep: Sweep, metrics: Sequence[Metric]) -> list[list[Row]]:
    """Rows of samples, one for each group and way of sampling, in lists that were judged alike."""
    by_setting: dict[Setting, dict[tuple[int, str], dict[str, Measurement]]] = {}
    names = samplers([found for found in sweep.measured if leading(metrics, found)])
    for place, group in enumerate(sweep.groups):
        for trial in group.trials:
            for measurement in trial.measured:
                metric = leading(metrics, measurement)
                if metric is not None:
                    rows = by_setting.setdefault(metric.setting(measurement), {})
                    row = rows.setdefault((place, names[way_of_sampling(measurement)]), {})
                    kept = [row[trial.name]] if trial.name in row else []
                    row[trial.name] = latest([*kept, measurement])
    return [
        sorted(
            (Row(sweep.groups[place], sampler, found) for (place, sampler), found in rows.items()),
            key=lambda row: (sweep.groups.index(row.group), row.figures("nfe")),
        )
        for rows in by_setting.values()
    ]


def _results(sweep: Sweep, metrics: Sequence[Metric], asked: Labels) -> Table:
    """Table of the numbers at the end of training and of the cost of training."""
    rows = [row_of(group, ends(sweep)) for group in sweep.groups]
    writer = _Writer(sweep, metrics, asked, rows)
    columns = [*writer.columns(), *(Column(head, SPREAD) for head in COSTS)]
    lines = [[*writer.cells(row), *(average(cost(row)) for cost in COSTS.values())] for row in rows]
    return writer.table("Results at the end of training", columns, lines)


def _further(
    sweep: Sweep, family: Family, metrics: Sequence[Metric], asked: Labels, found: Found
) -> Table:
    """Table of evaluations that are alike, with a row for each group."""
    rows = [row_of(group, found) for group in sweep.groups]
    shown = [metric for metric in metrics if any(row.values(metric) for row in rows)]
    writer = _Writer(sweep, shown, asked, rows)
    first = next(iter(found.values()))
    lines = [writer.cells(row) for row in rows]
    return writer.table(family.title(first), writer.columns(), lines, family.remarks(first))


def _samples(
    sweep: Sweep, family: Family, metrics: Sequence[Metric], asked: Labels, rows: Sequence[Row]
) -> Table:
    """Table of samples and their cost, with a row for each group and way of sampling."""
    shown = [metric for metric in metrics if any(row.values(metric) for row in rows)]
    writer = _Writer(sweep, shown, asked, rows)
    axes = len(sweep.shown_axes)
    columns, lines = writer.columns(), [writer.cells(row) for row in rows]
    columns[axes:axes] = [Column("sampler", number=False), Column("NFE", SPREAD)]
    columns.append(Column("sampling seconds", SPREAD))
    for line, row in zip(lines, rows, strict=True):
        line[axes:axes] = [Words(row.sampler), average(row.figures("nfe"))]
        line.append(average(row.figures("seconds")))
    first = next(iter(rows[0].found.values()))
    return writer.table(family.title(first), columns, lines, family.remarks(first))


class _Writer:
    """Writer of the columns that tables of bounds and of samples share.

    Args:
        sweep: sweep in its present state.
        metrics: metrics with a column each.
        asked: labels of the baseline.
        rows: rows of the table.
    """

    def __init__(
        self, sweep: Sweep, metrics: Sequence[Metric], asked: Labels, rows: Sequence[Row]
    ) -> None:
        self._sweep, self._metrics, self._rows, self._notes = sweep, metrics, rows, Notes()
        self._asked = asked
        everything = [m for row in rows for m in row.found.values()]
        self._mixed = len({measurement.exact for measurement in everything}) > 1
        bases = [m for row in rows if self._is_base(row) for m in row.found.values()]
        self._reference = next(iter([*bases, *everything]), None)
        self._tests = [self._test(row) for row in rows]
        tested = [(place, test) for place, test in enumerate(self._tests) if test is not None]
        corrected = holm([test.p for _, test in tested])
        self._holm = {place: p for (place, _), p in zip(tested, corrected, strict=True)}

    def columns(self) -> list[Column]:
        """Heads of the columns: axes, seeds, metrics, and the comparison with the baseline."""
        heads = [Column(axis, number=False) for axis in self._sweep.shown_axes]
        heads += [Column("n")]
        for place, metric in enumerate(self._metrics):
            heads.append(Column(metric.title, SPREAD))
            if self._asked and not place:
                heads += [Column(f"Δ {metric.title}"), Column("p"), Column("p (Holm)")]
                heads += [Column("test", number=False)]
        return heads

    def cells(self, row: Row) -> list[Cell]:
        """The cells of a row under `columns`."""
        line: list[Cell] = [Words(row.group.labels[axis]) for axis in self._sweep.shown_axes]
        measured, planned = len(row.values(self._metrics[0])), len(row.group.trials)
        line.append(Words(f"{measured}" if measured == planned else f"{measured} of {planned}"))
        for place, metric in enumerate(self._metrics):
            line.append(self._value(row, metric, leading=not place))
            if self._asked and not place:
                line += self._comparison(row)
        return line

    def table(
        self,
        title: str,
        columns: list[Column],
        lines: list[list[Cell]],
        remarks: Sequence[str] = (),
    ) -> Table:
        """The whole table, with remarks that explain its numbers."""
        remarks = [*remarks, "Mean ± sample standard deviation over n seeds."]
        remarks += self._silent()
        if self._asked:
            wanted = ", ".join(f"{axis} = {label}" for axis, label in self._asked.items())
            remarks.append(
                f"Δ: mean minus the mean of the row with {wanted}. p: two-sided, of t over seeds, "
                "in pairs where both rows have the same seeds, else Welch's; none with fewer than "
                f"two seeds. Holm: corrected for the {len(self._holm)} p-values of this column."
            )
        rows = tuple(map(tuple, lines))
        return Table(title, tuple(columns), rows, self._notes.by_letter(), tuple(remarks))

    def _silent(self) -> list[str]:
        """Lines on cards that lack a fact, so that their numbers are comparable with no others."""
        everything = [m for row in self._rows for m in row.found.values()]
        folder = f"{self._sweep.folder}/"
        lines = [line for metric in self._metrics for line in silent(metric, everything, folder)]
        return list(dict.fromkeys(lines))

    def _value(self, row: Row, metric: Metric, *, leading: bool) -> Cell:
        values = list(row.values(metric).values())
        marks = self._missing(row) if leading else []
        marks += self._unlike(row, metric)
        if not values:
            states = Counter(trial.status for trial in row.group.trials)
            return Nothing(states.most_common(1)[0][0] if leading else "", tuple(marks))
        if self._mixed and all(m.exact for m in row.found.values()):
            marks.append(self._notes.mark(EXACT))
        return Number(mean(values), deviation(values), tuple(marks))

    def _missing(self, row: Row) -> list[str]:
        """Marks for trials without a measurement; all trials that only wait share one mark."""
        absent = [trial for trial in row.group.trials if trial.name not in row.found]
        return list(dict.fromkeys(self._notes.mark(_absence(trial)) for trial in absent))

    def _unlike(self, row: Row, metric: Metric) -> list[str]:
        if self._reference is None:
            return []
        reference = self._reference
        found = [m for m in row.found.values() if metric.value(m) is not None]
        apart = {
            unlike(d, reference.run): None for m in found if (d := metric.differences(m, reference))
        }
        return [self._notes.mark(f"{metric.title}: not like the others: {line}") for line in apart]

    def _comparison(self, row: Row) -> list[Cell]:
        base, metric = self._base(row), self._metrics[0]
        if base is None or base.group == row.group:
            return [Nothing(), Nothing(), Nothing(), Words("baseline" if base else "")]
        own, other = row.values(metric), base.values(metric)
        if not own or not other:
            return [Nothing()] * 4
        delta = Number(mean(list(own.values())) - mean(list(other.values())))
        place = next(place for place, listed in enumerate(self._rows) if listed is row)
        test = self._tests[place]
        if test is None:
            why = "unlike" if self._apart(row, base) else "no p"
            return [delta, Nothing(), Nothing(), Words(why)]
        freedom = f"{test.freedom:.1f}".removesuffix(".0")
        return [
            delta,
            Probability(test.p),
            Probability(self._holm[place]),
            Words(f"{test.name}, {freedom} df"),
        ]

    def _test(self, row: Row) -> Significance | None:
        base, metric = self._base(row), self._metrics[0]
        if base is None or base.group == row.group or self._apart(row, base):
            return None
        own, other = row.values(metric), base.values(metric)
        if len(own) > 1 and own.keys() == other.keys():
            return paired([own[seed] for seed in own], [other[seed] for seed in own])
        return welch(list(own.values()), list(other.values()))

    def _apart(self, row: Row, base: Row) -> bool:
        metric = self._metrics[0]
        return any(
            metric.differences(m, other)
            for m in row.found.values()
            for other in base.found.values()
        )

    def _base(self, row: Row) -> Row | None:
        group = self._sweep.baseline(self._asked, row.group) if self._asked else None
        alike = (other for other in self._rows if other.sampler == row.sampler)
        return next((other for other in alike if other.group == group), None)

    def _is_base(self, row: Row) -> bool:
        return bool(self._asked) and self._asked.items() <= row.group.labels.items()


def _trials(sweep: Sweep, dashboard: str) -> Table:
    """Table of every trial, with links to its directory, relative to the report, and to Aim."""
    heads = [Column("trial", number=False)]
    heads += [Column(axis, number=False) for axis in sweep.axes]
    heads += [Column("status", number=False), Column("attempts"), Column("step")]
    heads += [Column(BOUNDS[0].title, "standard error"), Column("run in Aim", number=False)]
    rows = []
    for trial in sweep.trials:
        end = trial.result
        bits = BOUNDS[0].value(end) if end else None
        rows.append(
            (
                Words(trial.name, _link(sweep, trial)),
                *(Words(trial.labels[axis]) for axis in sweep.axes),
                Words(trial.why),
                Number(trial.state["attempts"]) if "attempts" in trial.state else Nothing(),
                recorded(end, "steps") if end else Nothing(),
                Nothing() if end is None or bits is None else Number(bits, BOUNDS[0].error(end)),
                Words(trial.aim_run, f"{dashboard}/runs/{trial.aim_run}")
                if trial.aim_run
                else Nothing(),
            )
        )
    remarks = ["± is the standard error of one evaluation, over its sequences."]
    if any(trial.aim_run for trial in sweep.trials):
        command = shlex.join(["platform", "dashboard", str(sweep.folder)])
        remarks.append(f"Links to Aim work while `{command}` runs.")
    return Table("Every trial", tuple(heads), tuple(rows), {}, tuple(remarks))


def _link(sweep: Sweep, trial: Trial) -> str | None:
    """Relative link to a trial's directory, so that a sweep may be moved; None before it exists."""
    if not trial.directory.path.exists():
        return None
    return quote(os.path.relpath(trial.directory.path, sweep.path / FOLDER)) + "/"


def average(values: Sequence[float]) -> Cell:
    """A cell of mean ± deviation; whole numbers that are all equal stay as they are."""
    if not values:
        return Nothing()
    if len(set(values)) == 1 and float(values[0]).is_integer():
        return Number(int(values[0]))
    return Number(mean(values), deviation(values))


def gigabytes(row: Row) -> list[float]:
    """Peak memory of the trials of a row, in GB."""
    return [peak / BYTES for peak in row.figures("peak_rss_bytes")]


COSTS: Mapping[str, Callable[[Row], list[float]]] = {
    "training seconds": lambda row: row.figures("seconds"),
    "peak memory (GB)": gigabytes,
    "parameters": lambda row: row.figures("parameters"),
}


def row_of(group: Group, found: Found) -> Row:
    """The row of a group, with the measurements of its own trials."""
    own = {trial.name: found[trial.name] for trial in group.trials if trial.name in found}
    return Row(group, "", own)


def _absence(trial: Trial) -> str:
    """The reason why a trial is missing from the mean; trials still to come share one reason."""
    if trial.status in ("waiting", "running"):
        return f"not all trials are there yet: {trial.status}"
    measured = "finished, but without this measurement" if trial.result else trial.why
    return f"{trial.name}: {measured}"
