"""`platform bench`: what one training step costs, measured side by side.

Every measurement is a process of its own, because the peak of a process's memory never falls.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from platform_core.cli._parser import Parser, positive


@dataclass(frozen=True)
class Size:
    """Of one training step."""

    states: int
    batch: int
    length: int
    width: int


def main(argv: Sequence[str]) -> int:
    """Prints a table: both paths and the network alone, then with each size doubled."""
    parser = Parser(prog="platform bench", description=__doc__, allow_abbrev=False)
    parser.add_argument("--states", type=positive, default=50257, help="size of the vocabulary")
    parser.add_argument("--batch", type=positive, default=4, help="sequences in the step")
    parser.add_argument("--length", type=positive, default=256, help="tokens in a sequence")
    parser.add_argument("--width", type=positive, default=256, help="hidden size of the network")
    parser.add_argument(
        "--one", choices=["network", "rows", "dense"], help="measure this path alone, as JSON"
    )
    options = parser.parse_args(argv)
    size = Size(options.states, options.batch, options.length, options.width)
    if options.one:
        from platform_core import bench

        print(json.dumps(bench.measure(options.one, **asdict(size))))
        return 0
    _table(size)
    return 0


def _table(size: Size) -> None:
    cases = [("dense", size), ("rows", size), ("network", size)]
    for name in ("batch", "length", "states"):
        doubled = Size(**{**asdict(size), name: 2 * getattr(size, name)})
        cases += [("rows", doubled), ("network", doubled)]
    titles = ("batch", "length", "states", "peak MB", "step MB", "seconds")
    print(f"{'path':8}" + "".join(f"{title:>9}" for title in titles))
    for path, case in cases:
        found = _measure_apart(path, case)
        print(
            f"{path:8}{case.batch:>9}{case.length:>9}{case.states:>9}"
            f"{found['peak_rss_bytes'] / 1e6:>9.0f}{found['step_rss_bytes'] / 1e6:>9.0f}"
            f"{found['seconds']:>9.2f}",
            flush=True,
        )


def _measure_apart(path: str, size: Size) -> dict[str, float]:
    sizes = [f"--{name}={value}" for name, value in asdict(size).items()]
    command = [sys.executable, "-m", "platform_core.cli", "bench", "--one", path, *sizes]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found
