"""The page of a report: one HTML file that needs no other files and no network.

Text comes from files of users and is escaped; plots are inline SVG; links go to the run directories
beside the report and to Aim's dashboard, if it runs. The page is `templates/page.html`.
"""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from platform_report.reading import Sweep
from platform_report.tables import Table, environment, write_html


def page(
    sweep: Sweep,
    tables: Mapping[str, Table],
    drawings: Mapping[str, str],
    *,
    command: Sequence[str],
) -> str:
    """The whole page as HTML.

    Args:
        sweep: sweep that the page shows.
        tables: tables by name; the table of trials gets its own section.
        drawings: plots as SVG elements, by name.
        command: command line that made the page.
    """
    written = {name: Markup(write_html(table)) for name, table in tables.items()}
    return (
        environment()
        .get_template("page.html")
        .render(
            name=sweep.path.resolve().name,
            standing=standing(sweep),
            trials=written.pop("trials"),
            results=list(written.values()),
            drawings=list(map(Markup, drawings.values())),
            commands=_commands(sweep, command),
            sweep=sweep,
        )
    )


def standing(sweep: Sweep) -> str:
    """The number of trials in each state, and the axes of the sweep."""
    counts = Counter(trial.status for trial in sweep.trials)
    parts = ", ".join(f"{number} {status}" for status, number in counts.items())
    axes = " × ".join(f"{axis} ({len(labels)})" for axis, labels in sweep.axes.items())
    return f"{len(sweep.trials)} trials: {parts}. Axes: {axes}."


def _commands(sweep: Sweep, command: Sequence[str]) -> str:
    """Command lines that repeat the sweep, one of its trials, and the page."""
    file, output = sweep.path / "sweep.yaml", sweep.path
    again = [
        "# the same sweep in another directory",
        shlex.join(["platform", "sweep", str(file), "--output", f"{output}-again"]),
    ]
    lines = [
        *(again if sweep.file else []),
        "# one trial of it" if sweep.file else "# one of the runs",
        shlex.join(
            ["platform", "run", "--config", str(sweep.trials[0].directory.config)]
            + ["--output", "runs/again"]
        )
        if sweep.trials
        else "",
        "# this page",
        shlex.join(command),
    ]
    return "\n".join(filter(None, lines))
