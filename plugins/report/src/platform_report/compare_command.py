"""`platform compare RUN RUN ...`: numbers of runs in one table, if they were measured alike."""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from platform_core.cli.parser import Parser
from platform_core.errors import UsageError
from platform_core.record.cards import chosen_metrics, measured_metrics
from platform_core.record.directory import RunDirectory
from platform_core.record.results import measurements
from platform_core.registry.loading import load_plugins
from platform_report.tables import FORMATS, write_tables


def main(argv: Sequence[str]) -> int:
    """Print the tables, or write them to a file."""
    from platform_report.compare import compare

    installed = load_plugins().metrics()
    asked = _arguments(installed).parse_args(argv)
    runs = {str(Path(run)): RunDirectory.existing(run) for run in asked.runs}
    if len(runs) < 2:
        raise UsageError("give at least two runs: platform compare RUN RUN ...")
    found = {run: measurements(directory, run) for run, directory in runs.items()}
    everything = [measurement for measured in found.values() for measurement in measured]
    metrics = chosen_metrics(asked.metric, installed, everything)
    # Columns are in the order of the plugins, not of the command line.
    metrics = [m for m in measured_metrics(installed.values(), everything).values() if m in metrics]
    tables = compare(found, metrics, asked=bool(asked.metric), mark=asked.mark)
    put(write_tables(tables, asked.format), asked.to)
    return 0


def put(text: str, path: Path | None) -> None:
    """Print a text, or write it to a file."""
    from platform_core.record.files import write_text

    if path is None:
        print(text, end="")
    else:
        write_text(path, text)


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add the options for the format of tables and the file that they go to."""
    parser.add_argument(
        "--format", choices=list(FORMATS), default="text", help="default: %(default)s"
    )
    parser.add_argument("--to", type=Path, metavar="FILE", help="file to write the tables to")


def _arguments(metrics: Iterable[str]) -> Parser:
    parser = Parser(
        prog="platform compare",
        description="Numbers of runs in one table; numbers that were measured unlike are refused.",
        allow_abbrev=False,
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="directories of runs")
    parser.add_argument(
        "--metric",
        action="append",
        default=[],
        metavar="NAME",
        help=f"metric, may be repeated: {', '.join(metrics)}; default: the usual ones",
    )
    parser.add_argument(
        "--mark", action="store_true", help="show unlike numbers in one table, with a mark"
    )
    add_output(parser)
    return parser
