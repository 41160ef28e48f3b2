"""`platform compare RUN RUN ...`: numbers of runs in one table, if they were measured alike."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from platform_core.cli.parser import Parser
from platform_core.errors import UsageError
from platform_core.record.cards import METRICS, find_metric, measurements
from platform_core.record.directory import RunDirectory
from platform_report.tables import FORMATS, write_tables


def main(argv: Sequence[str]) -> int:
    """Prints or writes the tables."""
    from platform_report.compare import compare

    asked = _arguments().parse_args(argv)
    runs = {str(Path(run)): RunDirectory.existing(run) for run in asked.runs}
    if len(runs) < 2:
        raise UsageError("name at least two runs: platform compare RUN RUN ...")
    metrics = [find_metric(name) for name in asked.metric]
    found = {run: measurements(directory, run) for run, directory in runs.items()}
    put(write_tables(compare(found, metrics, mark=asked.mark), asked.format), asked.to)
    return 0


def put(text: str, path: Path | None) -> None:
    """Prints a text, or writes it to a file."""
    from platform_core.record.files import write_text

    if path is None:
        print(text, end="")
    else:
        write_text(path, text)


def add_output(parser: argparse.ArgumentParser) -> None:
    """The options of how tables are written and where to."""
    parser.add_argument(
        "--format", choices=list(FORMATS), default="text", help="default: %(default)s"
    )
    parser.add_argument("--to", type=Path, metavar="FILE", help="write to a file instead")


def _arguments() -> Parser:
    parser = Parser(
        prog="platform compare",
        description="Numbers of runs in one table. Those that were measured unlike are refused.",
        allow_abbrev=False,
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="directories of runs")
    parser.add_argument(
        "--metric",
        action="append",
        default=[],
        metavar="NAME",
        help=f"may be repeated; of {', '.join(METRICS)}; default: the usual ones",
    )
    parser.add_argument(
        "--mark", action="store_true", help="show unlike numbers in one table, with a mark"
    )
    add_output(parser)
    return parser
