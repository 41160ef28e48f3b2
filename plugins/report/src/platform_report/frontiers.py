"""Frontiers: a curve for each group of trials and sampler, along the option that varies most.

    samples of temperature .6, .8, 1   ->  one curve of three points, each labelled with its value

A point is one way of sampling, a mean over seeds. Of the options of a sampler that vary, the one
with the most values runs along the curve, and the others make curves of their own. Real text is a
star, where it was measured. Quality alone can be bought by repetition, so the entropy of the text
stands beside it, and samplers are compared by their whole curves.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from platform_core.evaluation import plots
from platform_core.record.cards import Metric, shown
from platform_report.significance import mean
from platform_report.summary import Row

LABEL: Mapping[str, Any] = {"textcoords": "offset points", "xytext": (5, 4), "fontsize": "x-small"}


@dataclass(frozen=True)
class Spot:
    """One point of a curve: its place in the plot, and the value of the option that varies."""

    x: float
    y: float
    value: str


def frontier_curves(rows: Sequence[Row], across: Metric, up: Metric) -> dict[str, list[Spot]]:
    """The points of each curve in the order of the option that varies, by the curve's name.

    Args:
        rows: ways of sampling that were judged alike.
        across: metric of the x axis.
        up: metric of the y axis.
    """
    series: dict[tuple[str, str], list[tuple[dict[str, Any], Row]]] = {}
    for row in rows:
        options = options_of(row)
        if options and row.values(across) and row.values(up):
            key = row.group.name, str(options.pop("name", "unknown sampler"))
            series.setdefault(key, []).append((options, row))
    found: dict[str, list[Spot]] = {}
    groups = {group for group, _ in series}
    for (group, sampler), own in series.items():
        along, others = _varying([options for options, _ in own])
        named = [sampler] if len(groups) == 1 else [group, sampler]
        own.sort(key=lambda pair: _rank(pair[0].get(along)))
        for options, row in own:
            name = ", ".join([*named, *(f"{key} {shown(options.get(key))}" for key in others)])
            place = mean(list(row.values(across).values())), mean(list(row.values(up).values()))
            value = shown(options.get(along)) if along else ""
            found.setdefault(name, []).append(Spot(*place, value))
    return found


def options_of(row: Row) -> dict[str, Any]:
    """The name and the options of the sampler that drew the samples of a row; those of a sampler
    inside of it are called inner.OPTION.
    """
    sampler = next(iter(row.found.values())).fact("sampler")
    return dict(_flat("", sampler)) if isinstance(sampler, Mapping) else {}


def _flat(begin: str, options: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in options.items():
        if isinstance(value, Mapping):
            yield from _flat(f"{begin}{key}.", value)
        else:
            yield f"{begin}{key}", value


def _varying(ways: Sequence[Mapping[str, Any]]) -> tuple[str, list[str]]:
    """The option with the most values among those that vary, or ""; and the other such ones."""
    values = {
        key: {shown(way.get(key)) for way in ways}
        for key in dict.fromkeys(k for w in ways for k in w)
    }
    varying = [key for key, found in values.items() if len(found) > 1]
    if not varying:
        return "", []
    along = max(varying, key=lambda key: len(values[key]))
    return along, [key for key in varying if key != along]


def _rank(value: Any) -> tuple[int, float, str]:
    """Numbers by size, then words; an option that is not set comes last."""
    if isinstance(value, int | float):
        return 0, float(value), ""
    try:
        return 0, float(str(value)), ""
    except ValueError:
        return 1 + (value is None), 0.0, str(value)


def draw_frontier(rows: Sequence[Row], across: Metric, up: Metric) -> Figure | None:
    """The plot of all curves; None with fewer than two points."""
    curves = frontier_curves(rows, across, up)
    if sum(map(len, curves.values())) < 2:
        return None
    figure, axes = plots.new(title=f"{up.title} against {across.title}", x=across.title, y=up.title)
    for place, (name, spots) in enumerate(curves.items()):
        xs, ys = [spot.x for spot in spots], [spot.y for spot in spots]
        line = "-" if place < COLOURS else "--"
        look: dict[str, Any] = {
            "color": f"C{place % COLOURS}",
            "linestyle": line,
            "marker": "o",
            "markersize": 5,
        }
        axes.plot(xs, ys, label=plots.plain(name), **look)
        for spot in spots:
            axes.annotate(plots.plain(spot.value), (spot.x, spot.y), color=look["color"], **LABEL)
    real = _real(rows, across, up)
    if real is not None:
        axes.plot(*real, "k*", markersize=10, label="real text")
    figure.set_size_inches(*WIDE)
    figure.legend(loc="outside right upper", frameon=False, fontsize="small")
    return figure


def _real(rows: Sequence[Row], across: Metric, up: Metric) -> tuple[float, float] | None:
    """Where real text is, a mean over all measurements; None where nobody measured it."""
    found = [measurement for row in rows for measurement in row.found.values()]
    pairs = [
        (x, y)
        for measurement in found
        if across.reference
        and up.reference
        and (x := measurement.figure(across.reference)) is not None
        and (y := measurement.figure(up.reference)) is not None
    ]
    if not pairs:
        return None
    return mean([x for x, _ in pairs]), mean([y for _, y in pairs])


COLOURS = 10
"""Number of colours in matplotlib's cycle."""

WIDE = (8.6, 4.2)
