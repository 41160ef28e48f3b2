"""Figures of a run, kept as data: `figures/NAME-WHEN.json`, one file for each figure.

    {"kind": "trajectory", "step": 600, ...}  --draw-->  a plot

A record holds plain values, so that a figure can be drawn again, in another way, or by somebody
else. Records are written by `platform run` and drawn for Aim, by `platform dashboard --rebuild`,
and by `platform sample --trajectory`.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platform_core.errors import UsageError
from platform_core.evaluation.trajectory import Trajectory
from platform_core.record.files import write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from platform_core.evaluation.bound import Bound

FORMATS = (".json", ".png", ".svg", ".pdf")
"""File name endings of the formats in which a figure can be written."""

LIGHT, MIDDLE, DARK = "#d9d9d9", "#fdae61", "#2c7bb6"
"""Colors of a mask, of a token that will change, and of a token that stays."""


def draw(record: Mapping[str, Any]) -> "Figure":
    """The plot of a figure's record."""
    return _DRAWINGS[record["kind"]](record)


def write(record: Mapping[str, Any], path: Path) -> None:
    """Write a record or its plot to a file, in the format of the file name's ending."""
    if path.suffix == ".json":
        write_json(path, record)
        return
    from platform_core.evaluation import plots

    plots.write(draw(record), path)


def keep(record: Mapping[str, Any], path: Path) -> None:
    """Save a record to a file in place of an earlier one, and delete the earlier plot."""
    path.with_suffix(".png").unlink(missing_ok=True)
    write_json(path, record)


def plotted(path: Path) -> Path:
    """The file with the plot of a saved record, beside the record; drawn if it does not exist."""
    plot = path.with_suffix(".png")
    if not plot.exists():
        write(json.loads(path.read_text(encoding="utf-8")), plot)
    return plot


def require_format(path: Path, more: Iterable[str] = ()) -> Path:
    """The path, if a figure can be written there.

    Args:
        path: the file.
        more: file name endings of further formats, those of this kind of figure.

    Raises:
        UsageError: the file name does not end in a known format.
    """
    formats = (*FORMATS, *more)
    if path.suffix not in formats:
        raise UsageError(f"{path} cannot hold a figure; end its name in {', '.join(formats)}")
    return path


def trajectory(record: Mapping[str, Any]) -> "Figure":
    """Plot a trajectory: above, tokens changed by each step; below, every position at each call."""
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    from platform_core.evaluation import plots

    way = Trajectory.read(record)
    figure, (counts, grid) = plots.stacked(
        title=f"A sample in {len(way.tokens) - 1} steps",
        x="calls of the network so far",
        ys=["tokens", "position"],
        heights=[1, 2],
    )
    steps = range(1, len(way.tokens))
    for name, numbers in way.flips._asdict().items():
        if any(numbers):
            counts.plot(steps, numbers, label=name, linewidth=1, drawstyle="steps-mid")
    if counts.lines:
        counts.legend(fontsize="small", frameon=False, ncols=3)
    counts.set_ylim(bottom=0)
    grid.grid(visible=False)
    grid.imshow(
        list(zip(*states(way), strict=True)),
        aspect="auto",
        interpolation="nearest",
        cmap=ListedColormap([LIGHT, MIDDLE, DARK]),
        vmin=0,
        vmax=2,
    )
    names = {LIGHT: "mask", MIDDLE: "will change", DARK: "stays"}
    grid.legend(
        handles=[Patch(color=color, label=name) for color, name in names.items()],
        fontsize="small",
        ncols=3,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.25),
        frameon=False,
    )
    return figure


def states(way: Trajectory) -> list[list[int]]:
    """The state of each position before each call and at the end, `[calls + 1][length]`.

    0 is a mask, 2 a token that no later step changes, 1 any other token.
    """
    rows: list[list[int]] = []
    settled = [True] * len(way.tokens[-1])
    for later, tokens in pairwise([way.tokens[-1], *reversed(way.tokens)]):
        settled = [s and x == y for s, x, y in zip(settled, tokens, later, strict=True)]
        pairs = zip(tokens, settled, strict=True)
        rows.append([0 if way.masked(token) else 1 + stays for token, stays in pairs])
    return rows[::-1]


def levels_record(bound: "Bound", subset: str, protocol: str) -> dict[str, Any]:
    """The record of a figure that shows the bound by noise level."""
    return {
        "kind": "levels",
        "subset": subset,
        "protocol": protocol,
        "nats_per_token": bound.nats_per_token,
        "levels": [asdict(level) for level in bound.levels],
    }


def levels(record: Mapping[str, Any]) -> "Figure":
    """Plot the bound's integrand over the noise, with its spread over single sequences.

    Unknown standard errors are left out.
    """
    from platform_core.evaluation import plots

    parts = record["levels"]
    figure, axes = plots.new(
        title=f"{record['subset']}: {record['nats_per_token']:.3f} nats per token, the mean of "
        "this curve",
        x="noise, 1 - alpha" if record["protocol"] == "exact" else "time of the schedule",
        y="nats per token, per unit",
    )
    middles = [(part["start"] + part["end"]) / 2 for part in parts]
    # Records of older versions have no quantiles.
    if all(part.get("quantiles") for part in parts):
        lowest, low, median, high, highest = zip(*(p["quantiles"] for p in parts), strict=True)
        axes.vlines(middles, lowest, highest, color=LIGHT, linewidth=2)
        axes.vlines(middles, low, high, color=MIDDLE, linewidth=7, label="half of the sequences")
        axes.plot(middles, median, "_", color="black", label="median; thin: 5 to 95 %")
    axes.errorbar(
        middles,
        [part["nats_per_token"] for part in parts],
        yerr=[part["standard_error"] or 0 for part in parts],
        marker="o",
        capsize=3,
        label="mean and its standard error",
    )
    axes.legend(fontsize="small", frameon=False)
    axes.set_xlim(0, 1)
    axes.set_ylim(bottom=0)
    return figure


_DRAWINGS: Mapping[str, Callable[[Mapping[str, Any]], "Figure"]] = {
    "trajectory": trajectory,
    "levels": levels,
}
