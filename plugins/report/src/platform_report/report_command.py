"""`platform report SWEEP` or `RUN ...`: tables, plots and a page of a sweep's results."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from platform_core.cli.parser import Parser
from platform_core.record.cards import chosen_metrics
from platform_core.registry.loading import load_plugins
from platform_report.compare_command import add_output, put
from platform_report.reading import read_runs, read_sweep
from platform_report.tables import write_tables

DASHBOARD = "http://127.0.0.1:43800"
"""Default address at which `platform dashboard` serves Aim; links of trials go there."""


def main(argv: Sequence[str]) -> int:
    """Write SWEEP/report and print its tables; the sweep need not be finished."""
    from platform_report.writing import index, write_report

    installed = load_plugins().metrics()
    asked = _arguments(installed).parse_args(argv)
    single = len(asked.sweep) > 1 or (asked.sweep[0] / "config.yaml").is_file()
    sweep = read_runs(asked.sweep) if single else read_sweep(asked.sweep[0])
    metrics = chosen_metrics(asked.metric, installed, sweep.measured)
    tables = write_report(
        sweep,
        metrics,
        sweep.require_labels(asked.baseline),
        command=["platform", "report", *argv],
        dashboard=DASHBOARD,
    )
    page = index(sweep.path)
    if asked.to is not None or asked.format == "text":
        print(f"the whole report is {page}\n", flush=True)
    put(write_tables(list(tables.values()), asked.format), asked.to)
    if asked.open:
        import webbrowser

        webbrowser.open(page.resolve().as_uri())
    return 0


def _arguments(metrics: Iterable[str]) -> Parser:
    parser = Parser(
        prog="platform report",
        description="Writes tables of mean and standard deviation over seeds, plots, and a page "
        "with both to SWEEP/report, for a sweep that may still run, or for single runs.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "sweep",
        nargs="+",
        type=Path,
        metavar="SWEEP",
        help="directory of the sweep; or of one or more runs, whose report goes to the first one",
    )
    parser.add_argument(
        "--baseline",
        nargs="+",
        default=[],
        metavar="AXIS=LABEL",
        help="compare each row with the row that has these labels and is the same on other axes",
    )
    parser.add_argument(
        "--metric",
        action="append",
        default=[],
        metavar="NAME",
        help=f"metric, may be repeated: {', '.join(metrics)}; the first one is compared; default: "
        "the usual ones",
    )
    add_output(parser)
    parser.add_argument("--open", action="store_true", help="show the page in the web browser")
    return parser
