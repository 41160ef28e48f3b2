"""The plots of a report: curves of training, and quality against cost.

A colour stands for a group of trials that differ only in their seed; if there are many groups, for
all groups with the same label of the first axis. Curves are means over their trials, of as many
points as can be told apart. A point of quality against cost is a mean over seeds; the dashed line
joins the points that no other point beats in both.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from platform_core.evaluation import plots
from platform_core.record.bounds import BOUND
from platform_core.record.cards import Metric, families
from platform_report.frontiers import COLOURS, WIDE, draw_frontier
from platform_report.reading import Group, Sweep, Trial
from platform_report.significance import mean
from platform_report.summary import Row, ends, gigabytes, row_of, sampled

MOST_POINTS = 120
"""Most points of a curve; more are averaged, which also takes the noise out of a training loss."""

MOST_GROUPS = 20
"""Most groups with a colour each; more cannot be told apart."""

FEW_POINTS = 12
"""Most points of a curve that are drawn with markers."""

MUCH = 8
"""Ratio of the largest to the smallest number above which an axis is logarithmic."""


@dataclass(frozen=True)
class Curve:
    """Steps of training and the value of a metric at each."""

    steps: Sequence[float]
    values: Sequence[float]


def draw(sweep: Sweep, metrics: Sequence[Metric]) -> dict[str, Figure]:
    """Every plot for which there is data, by a name fit for a file."""
    drawn = {"loss": _curves(sweep, "training loss", "loss", lambda subset: subset == "train")}
    for family, own in families(metrics).items():
        if family == BOUND:
            drawn |= _of_bound(sweep, own[0])
        elif family.by_sampler:
            drawn |= _of_samples(sweep, own)
    return {name: figure for name, figure in drawn.items() if figure is not None}


def _of_bound(sweep: Sweep, metric: Metric) -> dict[str, Figure | None]:
    """The bound during training, and the final bound against the costs of training."""
    curves = _curves(
        sweep,
        f"{metric.title} during training (part of the held-out text)",
        metric.place,
        lambda subset: subset not in ("train", "final"),
    )
    rows = [row_of(group, ends(sweep)) for group in sweep.groups]
    return {metric.name: curves} | {
        f"{metric.name}-{name}": _pareto(sweep, metric, rows, cost)
        for name, cost in TRAINING_COSTS.items()
    }


def _of_samples(sweep: Sweep, metrics: Sequence[Metric]) -> dict[str, Figure | None]:
    """The first metric of samples against their costs, and each against those beside it."""
    first = metrics[0]
    costs = {
        f"{first.name}-{name}-{number}": _pareto(sweep, first, rows, cost)
        for number, rows in enumerate(sampled(sweep, [first]), 1)
        for name, cost in SAMPLING_COSTS.items()
    }
    frontiers = {
        f"{metric.name}-{other.name}-{number}": draw_frontier(rows, other, metric)
        for metric in metrics
        for other in metric.beside
        for number, rows in enumerate(sampled(sweep, [metric]), 1)
    }
    return {**costs, **frontiers}


def curve(trial: Trial, name: str, wanted: Callable[[str], bool]) -> Curve:
    """The finite values of a metric of one trial, by step."""
    points = [
        (record["step"], record[name])
        for record in trial.curves
        if wanted(record["subset"]) and math.isfinite(record.get(name, math.nan))
    ]
    return Curve([step for step, _ in points], [value for _, value in points])


def averaged(curves: Sequence[Curve], most: int = MOST_POINTS) -> Curve:
    """The mean of curves in at most `most` equal parts of the steps, over all points in each."""
    last = max((step for one in curves for step in one.steps), default=0)
    distinct = len({step for one in curves for step in one.steps})
    parts: dict[float, list[tuple[float, float]]] = {}
    for one in curves:
        for step, value in zip(one.steps, one.values, strict=True):
            part = step if distinct <= most else math.ceil(step / last * most)
            parts.setdefault(part, []).append((step, value))
    points = [list(zip(*inside, strict=True)) for _, inside in sorted(parts.items())]
    return Curve([mean(steps) for steps, _ in points], [mean(values) for _, values in points])


def frontier(points: Sequence[tuple[float, float]], *, lower: bool) -> list[tuple[float, float]]:
    """The points (cost, quality) that no point at most as costly matches or beats, by cost."""
    kept: list[tuple[float, float]] = []
    sign = 1 if lower else -1
    for cost, quality in sorted(points, key=lambda point: (point[0], sign * point[1])):
        if not kept or sign * quality < sign * kept[-1][1]:
            kept.append((cost, quality))
    return kept


def series(sweep: Sweep) -> dict[str, list[Group]]:
    """Groups by the name of their series in a plot, in order."""
    if len(sweep.groups) <= MOST_GROUPS:
        return {group.name: [group] for group in sweep.groups}
    found: dict[str, list[Group]] = {}
    for group in sweep.groups:
        found.setdefault(next(iter(group.labels.values())), []).append(group)
    return found


def _curves(sweep: Sweep, title: str, name: str, wanted: Callable[[str], bool]) -> Figure | None:
    drawn = {
        label: averaged([curve(trial, name, wanted) for group in groups for trial in group.trials])
        for label, groups in series(sweep).items()
    }
    if not any(one.steps for one in drawn.values()):
        return None
    figure, axes = plots.new(title=title, x="step", y=UNITS.get(name, "nats per token"))
    for place, (label, one) in enumerate(drawn.items()):
        if one.steps:
            marker = "o" if len(one.steps) <= FEW_POINTS else ""
            look = {**_style(place), "marker": marker}
            axes.plot(one.steps, one.values, label=plots.plain(label), **look)
    return _with_legend(figure)


def _pareto(sweep: Sweep, metric: Metric, rows: Sequence[Row], cost: "Cost") -> Figure | None:
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        values, costs = list(row.values(metric).values()), cost.of(row)
        if values and costs:
            points.setdefault(row.group.name, []).append((mean(costs), mean(values)))
    everything = [point for found in points.values() for point in found]
    if len(everything) < 2:
        return None
    title = f"{metric.title} against {cost.title}"
    figure, axes = plots.new(title=title, x=cost.title, y=metric.title)
    for place, (label, groups) in enumerate(series(sweep).items()):
        labels = [plots.plain(label)]
        for group in groups:
            if group.name in points:
                xs, ys = zip(*sorted(points[group.name]), strict=True)
                name = labels.pop() if labels else None
                axes.plot(xs, ys, label=name, **_style(place), marker="o")
    xs, ys = zip(*frontier(everything, lower=metric.lower_is_better), strict=True)
    axes.plot(xs, ys, "k--", linewidth=1, alpha=0.5, label="best trade-off")
    _scale(axes.set_xscale, axes.xaxis, [x for x, _ in everything])
    _scale(axes.set_yscale, axes.yaxis, [y for _, y in everything])
    return _with_legend(figure)


def _scale(choose: Callable[..., None], axis: Any, numbers: Sequence[float]) -> None:
    """Make an axis logarithmic if its numbers differ much, with ticks at plain numbers."""
    if min(numbers) > 0 and max(numbers) / min(numbers) > MUCH:
        choose("log", base=2)
        axis.set_major_formatter("{x:g}")


def _with_legend(figure: Figure) -> Figure:
    figure.set_size_inches(*WIDE)
    figure.legend(loc="outside right upper", frameon=False, fontsize="small")
    return figure


def _style(place: int) -> dict[str, Any]:
    """Colour and line of each series, the same in all plots."""
    return {
        "color": f"C{place % COLOURS}",
        "linestyle": "-" if place < COLOURS else "--",
        "linewidth": 1.6,
        "markersize": 5,
    }


UNITS = {"bits_per_character": "bits per character", "bits_per_token": "bits per token"}
UNITS |= {"perplexity": "perplexity per token", "loss": "nats per token"}


@dataclass(frozen=True)
class Cost:
    """A cost against which quality is drawn.

    Args:
        title: title with the unit.
        of: function from a row to its numbers, over seeds.
    """

    title: str
    of: Callable[[Row], list[float]]


TRAINING_COSTS: Mapping[str, Cost] = {
    "seconds": Cost("training seconds", lambda row: row.figures("seconds")),
    "memory": Cost("peak memory (GB)", gigabytes),
}

SAMPLING_COSTS: Mapping[str, Cost] = {
    "nfe": Cost("network evaluations (NFE)", lambda row: row.figures("nfe")),
    "seconds": Cost("sampling seconds", lambda row: row.figures("seconds")),
}
