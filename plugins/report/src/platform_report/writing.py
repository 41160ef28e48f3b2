"""A report's files, written together or not at all.

    OUT/report/  index.html  report.md  report.tex  report.csv  tables/NAME.csv  plots/NAME.svg

Written by `platform report`.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from platform_core.record.cards import Metric
from platform_core.record.files import whole_folder, write_text
from platform_report.page import page, standing
from platform_report.reading import Labels, Sweep
from platform_report.summary import FOLDER, tables
from platform_report.tables import FORMATS, Table, write_tables

OF_REPORTS = ("plots", "tables")
"""Folders that hold nothing but files of a report, and are made anew."""


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
    title = f"# {sweep.path.resolve().name}\n\n{standing(sweep)}\n\n"
    files = {
        **{f"plots/{name}.svg": drawing for name, drawing in drawings.items()},
        **{f"tables/{name}.csv": sheet for name, sheet in sheets.items()},
        "report.csv": next(iter(sheets.values())),
        "report.md": title + write_tables(list(made.values()), "markdown"),
        "report.tex": write_tables(list(made.values()), "latex"),
        index(sweep.path).name: page(sweep, made, drawings, command=command),
    }
    with whole_folder(folder, replace=True) as new:
        for name, text in files.items():
            write_text(new / name, text)
        _keep_others(folder, new)
    return made


def _keep_others(old: Path, new: Path) -> None:
    """Copy what others have put beside the files of an earlier report."""
    for path in old.iterdir() if old.exists() else ():
        if path.name not in OF_REPORTS and not (new / path.name).exists():
            if path.is_dir() and not path.is_symlink():
                shutil.copytree(path, new / path.name, symlinks=True)
            else:
                shutil.copy2(path, new / path.name, follow_symlinks=False)


def index(sweep: Path) -> Path:
    """Path of the page of a sweep's report."""
    return sweep / FOLDER / "index.html"
