"""A report's files, each written as a whole or not at all.

    OUT/report/  index.html  report.md  report.tex  report.csv  tables/NAME.csv  plots/NAME.svg

Written by `platform report`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from platform_core.record.cards import Metric
from platform_core.record.files import write_text
from platform_report.page import page, standing
from platform_report.reading import Labels, Sweep
from platform_report.summary import FOLDER, tables
from platform_report.tables import FORMATS, Table, write_tables


def write_report(
    sweep: Sweep,
    metrics: Sequence[Metric],
    baseline: Labels,
    *,
    command: Sequence[str],
    dashboard: str,
) -> Mapping[str, Table]:
    """Write all files of a report, and return the tables by name.

    Args:
        sweep: sweep in its present state.
        metrics: metrics to show.
        baseline: labels of the rows that others are compared with.
        command: command line that asks for the report.
        dashboard: address of Aim's interface.
    """
    from platform_core.evaluation import plots
    from platform_report.figures import draw

    made = tables(sweep, metrics, baseline, dashboard)
    folder = sweep.path / FOLDER
    figures = draw(sweep, metrics)
    drawings = {name: plots.svg(figure) for name, figure in figures.items()}
    sheets = {name: FORMATS["csv"](table) for name, table in made.items()}
    _fill(folder / "plots", {f"{name}.svg": drawing for name, drawing in drawings.items()})
    _fill(folder / "tables", {f"{name}.csv": sheet for name, sheet in sheets.items()})
    write_text(folder / "report.csv", next(iter(sheets.values())))
    title = f"# {sweep.path.resolve().name}\n\n{standing(sweep)}\n\n"
    write_text(folder / "report.md", title + write_tables(list(made.values()), "markdown"))
    write_text(folder / "report.tex", write_tables(list(made.values()), "latex"))
    # The page is written last, so that its other files exist once it does.
    write_text(
        index(sweep.path),
        page(sweep, made, drawings, command=command),
    )
    return made


def _fill(folder: Path, files: Mapping[str, str]) -> None:
    """Write files, and remove files of an earlier report that showed other metrics."""
    for name, text in files.items():
        write_text(folder / name, text)
    if folder.exists():
        for path in folder.iterdir():
            if path.name not in files:
                path.unlink()


def index(sweep: Path) -> Path:
    """Path of the page of a sweep's report."""
    return sweep / FOLDER / "index.html"
