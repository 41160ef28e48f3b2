"""The page of a report: one HTML file that needs nothing else, and no network.

Text comes from files of users and is escaped; plots are inline SVG; links go to the run directories
beside it and to Aim's dashboard, where that runs.
"""

import html
import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence

from platform_report.reading import Sweep
from platform_report.tables import Table, write_html

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1c2733; background: #fff; margin: 0; }
main { max-width: 1480px; margin: 0 auto; padding: 24px 32px 64px; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 19px; margin: 36px 0 8px; }
.quiet, .note { color: #5a6878; } .note { font-size: 13px; margin: 3px 0; max-width: 1100px; }
nav a { margin-right: 18px; } a { color: #1557a8; }
.table { overflow-x: auto; margin: 12px 0 28px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding-bottom: 6px; }
th, td { padding: 5px 12px; border-bottom: 1px solid #e3e8ee; vertical-align: top; }
th { border-bottom: 2px solid #9aa7b5; text-align: left; font-size: 13px; }
tbody tr:hover { background: #f4f7fa; }
.number { text-align: right; } td { white-space: nowrap; }
td.long { white-space: normal; min-width: 300px; }
td.number sup { position: absolute; }
sup { color: #b3450b; margin-left: 2px; line-height: 0; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(560px, 1fr)); gap: 20px; }
.plots svg { width: 100%; height: auto; }
pre { background: #f4f7fa; padding: 12px 16px; overflow-x: auto; font-size: 13px; }
details { margin: 6px 0; } summary { cursor: pointer; }
"""


def page(
    sweep: Sweep,
    tables: Mapping[str, Table],
    drawings: Mapping[str, str],
    *,
    command: Sequence[str],
) -> str:
    """The whole page.

    Args:
        sweep: what it is of.
        tables: by name; the one of trials comes in its own section.
        drawings: plots as SVG elements.
        command: that made it.
    """
    results = [write_html(table) for name, table in tables.items() if name != "trials"]
    plots = "\n".join(f"<figure>{drawing}</figure>" for drawing in drawings.values())
    sections = {
        "Results": "".join(results) or "<p>Nothing has been measured yet.</p>",
        "Plots": f'<div class="plots">{plots}</div>' if plots else "<p>Nothing to draw yet.</p>",
        "Trials": write_html(tables["trials"]),
        "Sweep": f"<pre>{html.escape(sweep.file)}</pre>",
        "Reproduce": _commands(sweep, command),
        "Cards": _cards(sweep),
    }
    anchors = {title: title.lower() for title in sections}
    body = "".join(
        f'<h2 id="{anchors[title]}">{title}</h2>\n{content}\n'
        for title, content in sections.items()
    )
    navigation = "".join(f'<a href="#{anchors[title]}">{title}</a>' for title in sections)
    name = html.escape(sweep.path.resolve().name)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{name}</title>'
        f"<style>{STYLE}</style></head><body><main>\n<h1>{name}</h1>\n"
        f'<p class="quiet">{html.escape(standing(sweep))}</p>\n<nav>{navigation}</nav>\n'
        f"{body}</main></body></html>\n"
    )


def standing(sweep: Sweep) -> str:
    """How many trials are how far."""
    counts = Counter(trial.status for trial in sweep.trials)
    parts = ", ".join(f"{number} {status}" for status, number in counts.items())
    axes = " × ".join(f"{axis} ({len(labels)})" for axis, labels in sweep.axes.items())
    return f"{len(sweep.trials)} trials: {parts}. Axes: {axes}."


def _commands(sweep: Sweep, command: Sequence[str]) -> str:
    file, output = sweep.path / "sweep.yaml", sweep.path
    lines = [
        "# the same sweep in another directory",
        shlex.join(["platform", "sweep", str(file), "--output", f"{output}-again"]),
        "# one trial of it",
        shlex.join(
            ["platform", "run", "--config", str(sweep.trials[0].directory.config)]
            + ["--output", "runs/again"]
        )
        if sweep.trials
        else "",
        "# this page",
        shlex.join(command),
    ]
    return f"<pre>{html.escape(chr(10).join(filter(None, lines)))}</pre>"


def _cards(sweep: Sweep) -> str:
    """How every number was made, as it is recorded."""
    blocks = []
    for trial in sweep.trials:
        for measurement in trial.measured:
            card = html.escape(json.dumps(measurement.card, indent=1, ensure_ascii=False))
            head = html.escape(f"{trial.name}: {measurement.name}")
            blocks.append(f"<details><summary>{head}</summary><pre>{card}</pre></details>")
    return "".join(blocks) or "<p>No card yet.</p>"
