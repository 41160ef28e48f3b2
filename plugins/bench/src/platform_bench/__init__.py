"""Benchmarks: cases that are measured side by side, each in a process of its own.

Each case needs its own process because the peak of a process's memory never falls. A suite is a
module of this package with `TITLE`, `COLUMNS`, `cases(size)` and `measure(case)`; `platform bench`
prints its table.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from types import ModuleType

from platform_core.errors import UsageError

SUITES = ("training", "objectives", "sampling", "families", "counts")
"""Modules of this package with suites, and the choices of `--what`."""

Figures = dict[str, float]


@dataclass(frozen=True)
class Size:
    """Size of the network and of the batch that it reads.

    Args:
        states: tokens of the vocabulary.
        batch: sequences in a batch.
        length: tokens in each sequence.
        network: preset of backbone dit.
        width: hidden size of the network; None for the preset's.
    """

    states: int
    batch: int
    length: int
    network: str
    width: int | None


@dataclass(frozen=True)
class Case:
    """One row of a suite's table."""

    suite: str
    path: str
    """Name that the suite gives to what is measured."""
    size: Size

    def to_json(self) -> str:
        """The case as one word of a command line, in JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Case":
        """The case that `to_json` wrote.

        Raises:
            UsageError: the text is no case.
        """
        try:
            fields = json.loads(text)
            case = cls(fields["suite"], fields["path"], Size(**fields["size"]))
            numbers = [case.size.states, case.size.batch, case.size.length, case.size.width or 1]
            possible = case.suite in SUITES and isinstance(case.size.network, str)
        except (ValueError, TypeError, KeyError, RecursionError):
            possible, numbers = False, []
        if not possible or not all(type(number) is int and number > 0 for number in numbers):
            raise UsageError(
                f"--one {text[:100]!r} is no case of a benchmark; it is JSON that platform bench "
                "writes for its own processes, so leave it out"
            )
        return case


def suite(name: str) -> ModuleType:
    """The module of a suite, which imports torch."""
    return import_module(f"{__name__}.{name}")


def measure(case: Case) -> Figures:
    """The figures of one case, measured in this process, which should do nothing else.

    Raises:
        UsageError: the suite has no such path.
    """
    module = suite(case.suite)
    known = [other.path for other in module.cases(case.size)]
    if case.path not in known:
        raise UsageError(f"--one: suite {case.suite} has no path {case.path!r}, only {known}")
    figures: Figures = module.measure(case)
    return figures


def measure_apart(case: Case) -> Figures:
    """The figures of one case, measured in a new process.

    Raises:
        UsageError: that process failed; its messages are on standard error.
    """
    # -P: no module of the current directory stands in for a library's.
    command = [sys.executable, "-P", "-m", "platform_core.cli", "bench", "--one", case.to_json()]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise UsageError(f"{case.path} could not be measured: its process ended as shown above")
    figures: Figures = json.loads(done.stdout)
    return figures


def table(name: str, size: Size, only: str = "") -> Iterator[str]:
    """The lines of a suite's table, each as soon as it is measured; at most 80 columns wide.

    Args:
        name: the suite.
        size: of the network and the batch.
        only: words of the paths to measure.

    Raises:
        UsageError: no path has these words.
    """
    module = suite(name)
    cases = [case for case in module.cases(size) if only in case.path]
    if not cases:
        paths = ", ".join(case.path.replace(",", "") for case in module.cases(size))
        raise UsageError(f"--only {only!r} is in no path of the suite {name}: {paths}")
    yield module.TITLE
    width = min(10, 44 // len(module.COLUMNS))
    titles = "".join(f"{title:>{width}}" for title, _ in module.COLUMNS.values())
    yield f"{'path':22}{'size':>14}{titles}"
    for case in cases:
        figures = measure_apart(case)
        shape = f"{case.size.batch}x{case.size.length}x{case.size.states}"
        yield f"{case.path:22}{shape:>14}" + "".join(
            f"{form.format(figures[key]):>{width}}" for key, (_, form) in module.COLUMNS.items()
        )
