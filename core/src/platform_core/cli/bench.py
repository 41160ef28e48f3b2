"""`platform bench`: what one training step costs, measured side by side.

Every measurement is a process of its own, because the peak of a process's memory never falls.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

from platform_core.cli._parser import Parser, positive


@dataclass(frozen=True)
class Size:
    """Of one training step."""

    states: int
    batch: int
    length: int
    width: int


Cases = list[tuple[str, Size]]
"""What is measured, by its name in `platform_core.bench`, and at which size."""


def paths(size: Size) -> Cases:
    """Both paths and the network alone, then with each size doubled."""
    cases = [("dense", size), ("rows", size), ("network", size)]
    for name in ("batch", "length", "states"):
        doubled = Size(**{**asdict(size), name: 2 * getattr(size, name)})
        cases += [("rows", doubled), ("network", doubled)]
    return cases


def objectives(size: Size) -> Cases:
    """The bound of uniform noise, and DUO's curriculum in its forms."""
    return [(name, size) for name in ("rows", "curriculum", "curriculum-top-2", "curriculum-top-5")]


TABLES: Mapping[str, Callable[[Size], Cases]] = {"paths": paths, "objectives": objectives}


def main(argv: Sequence[str]) -> int:
    """Prints a table."""
    parser = Parser(prog="platform bench", description=__doc__, allow_abbrev=False)
    parser.add_argument("--states", type=positive, default=50257, help="size of the vocabulary")
    parser.add_argument("--batch", type=positive, default=4, help="sequences in the step")
    parser.add_argument("--length", type=positive, default=256, help="tokens in a sequence")
    parser.add_argument("--width", type=positive, default=256, help="hidden size of the network")
    parser.add_argument(
        "--what",
        choices=list(TABLES),
        default="paths",
        help="paths: of the rows path beside the dense one; objectives: of the bound beside the "
        "curriculum",
    )
    names = {name for cases in TABLES.values() for name, _ in cases(Size(1, 1, 1, 1))}
    parser.add_argument("--one", choices=sorted(names), help="measure this row alone, as JSON")
    options = parser.parse_args(argv)
    size = Size(options.states, options.batch, options.length, options.width)
    if options.one:
        from platform_core import bench

        print(json.dumps(bench.measure(options.one, **asdict(size))))
        return 0
    _table(TABLES[options.what](size))
    return 0


def _table(cases: Cases) -> None:
    titles = ("batch", "length", "states", "peak MB", "step MB", "seconds")
    print(f"{'path':16}" + "".join(f"{title:>9}" for title in titles))
    for path, case in cases:
        found = _measure_apart(path, case)
        print(
            f"{path:16}{case.batch:>9}{case.length:>9}{case.states:>9}"
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
