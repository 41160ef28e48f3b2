"""Plots in one style for the whole platform, drawn without a display.

    figure, axes = new(title=..., x=..., y=...);  axes.plot(...);  write(figure, path)

This module imports matplotlib, so it is imported only where a plot is drawn.
"""

import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from platform_core.record.files import write_bytes

SIZE = (6.4, 4.0)
"""Width and height of a plot in inches."""


def new(*, title: str, x: str, y: str) -> tuple[Figure, Axes]:
    """An empty plot with labelled axes."""
    figure, [axes] = stacked(title=title, x=x, ys=[y], heights=[1])
    return figure, axes


def stacked(
    *, title: str, x: str, ys: Sequence[str], heights: Sequence[float]
) -> tuple[Figure, list[Axes]]:
    """Empty plots above one another that share one x axis.

    Args:
        title: title above the first plot.
        x: label below the last plot.
        ys: y label of each plot.
        heights: height of each plot, relative to the others.
    """
    figure = Figure(figsize=SIZE, layout="constrained")
    grid = figure.add_gridspec(len(ys), 1, height_ratios=list(heights))
    column: list[Axes] = []
    for row, y in enumerate(ys):
        axes = figure.add_subplot(grid[row], ylabel=y, sharex=column[0] if column else None)
        axes.grid(visible=True, alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelbottom=row == len(ys) - 1)
        column.append(axes)
    column[0].set_title(title)
    column[-1].set_xlabel(x)
    return figure, column


def plain(text: str) -> str:
    """A label that matplotlib shows literally: `$` starts no mathematics, and a leading `_` does
    not hide the label from the legend.
    """
    return f"\u200b{text}".replace("$", r"\$") if text[:1] == "_" else text.replace("$", r"\$")


def write(figure: Figure, path: Path) -> None:
    """The plot as a file of the format that the name ends in, as a whole or not at all; the same
    plot gives the same bytes.
    """
    from matplotlib import rc_context

    drawing, form = io.BytesIO(), path.suffix.removeprefix(".").lower()
    dated = {"svg": "Date", "svgz": "Date", "pdf": "CreationDate", "ps": "CreationDate"}
    undated = {dated[form]: None} if form in dated else None
    with rc_context({"svg.hashsalt": "platform"}):
        figure.savefig(drawing, format=form, metadata=undated)
    write_bytes(path, drawing.getvalue())


def svg(figure: Figure) -> str:
    """The plot as an SVG element of an HTML page; the same plot gives the same text."""
    from matplotlib import rc_context

    text = io.StringIO()
    with rc_context({"svg.hashsalt": "platform", "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    drawing = text.getvalue()
    return drawing[drawing.index("<svg") :]
