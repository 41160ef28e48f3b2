"""Which lines of the mathematics no test notices: a seeded run of mutants.

    python tests/mutations.py --number 60 --seed 0 --to mutations.json

A mutant is one module of the mathematics with one small fault: `>` for `>=`, float32 for float64,
alpha_s for alpha_t, a missing clamp. Faults are drawn from all that the operators of this file can
make, each operator in turn. Each mutant is written into a temporary copy of the sources, never into
the tree; then the quick tests that import its module are run against that copy, the nearest first,
and after them the quick laws of all parts, until one fails. A mutant that none of them notices is
printed with its line, as it was and as it is. Some mutants mean the same as the original; whoever
reads the list has to tell them apart.

A run takes minutes and is no part of CI. Every mutant has a process of its own, forked from one
that has imported the libraries already. Ctrl-C ends the run, and the record is kept.
"""

import argparse
import ast
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("core", *(f"plugins/{name}" for name in ("ar", "d3pm", "dit", "duo", "harness", "mdlm")))
SOURCES = (*SOURCES, "plugins/gidd", "plugins/sedd")
CORE = (
    "categorical",
    "distillation",
    "draws",
    "guidance",
    "last_layer",
    "model",
    "objective",
    "parameterization",
    "process",
    "rows",
    "sampler",
    "schedule",
)
PLUGINS = ("ar", "d3pm", "duo", "gidd", "mdlm", "sedd")
LAWS = "tests/test_contract.py"
ROLES = ("process", "schedule", "parameterization", "objective", "sampler")
"""Roles whose laws are run: those that a fault of the mathematics can break."""

NEAREST = 2
"""Test files that are tried on a mutant before all others are even imported."""

EVERYWHERE = 8
"""A module that more test files import than this is tried on so many of them, the nearest."""


# What a fault is.


@dataclass(frozen=True)
class Mutant:
    """One fault.

    Args:
        file: below the root of the repository.
        line: of the fault, from 1.
        operator: which kind of fault it is.
        span: of the source that is replaced, from and to, in characters.
        new: what stands there instead.
        original: the line as it was.
        mutated: the line as it is.
    """

    file: str
    line: int
    operator: str
    span: tuple[int, int]
    new: str
    original: str
    mutated: str


COMPARED = {ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Lt: ast.LtE, ast.LtE: ast.Lt}
COMPARED |= {ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}
COMPUTED = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}
COMPUTED |= {ast.Pow: ast.Mult, ast.FloorDiv: ast.Div}
JOINED = {ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.And: ast.Or, ast.Or: ast.And}
NARROWED = {"float64": "float32", "double": "float"}
EXCHANGED = {"s": "t", "t": "s", "alpha_s": "alpha_t", "alpha_t": "alpha_s", "x_s": "x_t"}
EXCHANGED |= {"log_student": "log_teacher", "log_teacher": "log_student"}
CLAMPS = ("clamp", "clamp_min", "clamp_max")
Fault = tuple[str, ast.expr, str]


def comparison(node: ast.AST) -> Iterator[Fault]:
    """A comparison is strict, or no longer strict."""
    if isinstance(node, ast.Compare):
        for place, operator in enumerate(node.ops):
            if type(operator) in COMPARED:
                operators = list(node.ops)
                operators[place] = COMPARED[type(operator)]()
                new = ast.Compare(node.left, operators, node.comparators)
                yield "comparison", node, f"({ast.unparse(new)})"


def arithmetic(node: ast.AST) -> Iterator[Fault]:
    """A sum is a difference, a product a quotient."""
    if isinstance(node, ast.BinOp) and type(node.op) in COMPUTED:
        new = ast.BinOp(node.left, COMPUTED[type(node.op)](), node.right)
        yield "arithmetic", node, f"({ast.unparse(new)})"


def junction(node: ast.AST) -> Iterator[Fault]:
    """What holds of both holds of either."""
    if isinstance(node, ast.BinOp) and type(node.op) in JOINED:
        new = ast.BinOp(node.left, JOINED[type(node.op)](), node.right)
        yield "junction", node, f"({ast.unparse(new)})"
    if isinstance(node, ast.BoolOp):
        new = ast.BoolOp(JOINED[type(node.op)](), node.values)
        yield "junction", node, f"({ast.unparse(new)})"


def sign(node: ast.AST) -> Iterator[Fault]:
    """A minus, a `~` or a `not` is left out."""
    if isinstance(node, ast.UnaryOp) and not isinstance(node.operand, ast.Constant):
        yield "sign", node, f"({ast.unparse(node.operand)})"


def constant(node: ast.AST) -> Iterator[Fault]:
    """A number is one more, a truth value the other."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield "constant", node, repr(node.value + 1)
    value = node.value if isinstance(node, ast.keyword) else None
    if isinstance(value, ast.Constant) and isinstance(value.value, bool):
        yield "constant", value, repr(not value.value)


def clamp(node: ast.AST) -> Iterator[Fault]:
    """A limit is left out."""
    if isinstance(node, ast.Call) and not node.keywords:
        if isinstance(node.func, ast.Attribute) and node.func.attr in CLAMPS:
            yield "clamp", node, f"({ast.unparse(node.func.value)})"
        if isinstance(node.func, ast.Name) and node.func.id in ("min", "max"):
            for argument in node.args if len(node.args) == 2 else ():
                yield "clamp", node, f"({ast.unparse(argument)})"


def precision(node: ast.AST) -> Iterator[Fault]:
    """float32 stands where float64 did."""
    if isinstance(node, ast.Attribute) and node.attr in NARROWED:
        yield "precision", node, f"{ast.unparse(node.value)}.{NARROWED[node.attr]}"


def exchange(node: ast.AST) -> Iterator[Fault]:
    """One of two times, levels or texts stands for the other; or two choices are exchanged."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in EXCHANGED:
        yield "exchange", node, EXCHANGED[node.id]
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.where":
        condition, *choices = (ast.unparse(argument) for argument in node.args)
        yield "exchange", node, f"torch.where({', '.join([condition, *reversed(choices)])})"


def gradient(node: ast.AST) -> Iterator[Fault]:
    """A gradient flows where none should."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr == "detach":
            yield "gradient", node, f"({ast.unparse(node.func.value)})"
        if ast.unparse(node.func) == "torch.no_grad":
            yield "gradient", node, "torch.enable_grad()"


def argument(node: ast.AST) -> Iterator[Fault]:
    """What is known besides (labels, positions that are given, a truncation) is not handed on."""
    told = isinstance(node, ast.keyword) and node.arg in ("fixed", "conditions")
    if told and not isinstance(node.value, ast.Constant):
        yield "argument", node.value, "None"
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
        other = {"conditions": "None", "truncation": "(lambda law: law)"}.get(node.attr)
        if other is not None:
            yield "argument", node, other


OPERATORS = (comparison, arithmetic, junction, sign, constant, clamp, precision, exchange)
OPERATORS = (*OPERATORS, gradient, argument)


def mutants(file: str, source: str) -> Iterator[Mutant]:
    """Every fault that the operators make of a module, in the order of its lines."""
    starts = [0]
    for line in source.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    raw, lines = source.encode(), source.splitlines()
    for node in computing(ast.parse(source)):
        for operator in OPERATORS:
            for name, old, new in operator(node):
                start = starts[old.lineno - 1] + old.col_offset
                end = starts[(old.end_lineno or 0) - 1] + (old.end_col_offset or 0)
                after = (raw[:start] + new.encode() + raw[end:]).decode()
                line = old.lineno
                mutated = after.splitlines()[line - 1].strip()
                yield Mutant(file, line, name, (start, end), new, lines[line - 1].strip(), mutated)


def computing(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes that compute something: no annotations, no messages, no checks of options."""
    if isinstance(node, (ast.Raise, ast.Assert, ast.JoinedStr, ast.AnnAssign, ast.arg)):
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            yield from computing(node.value)
        return
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("returns", "annotation"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from computing(child)


def written(mutant: Mutant, source: str) -> str:
    """The module with the fault."""
    (start, end), raw = mutant.span, source.encode()
    return (raw[:start] + mutant.new.encode() + raw[end:]).decode()


def sample(found: Iterable[Mutant], number: int, seed: int) -> list[Mutant]:
    """So many mutants, each operator in turn, the same for the same seed."""
    order = random.Random(seed)
    kinds: dict[str, list[Mutant]] = defaultdict(list)
    for mutant in found:
        kinds[mutant.operator].append(mutant)
    for kind in kinds.values():
        order.shuffle(kind)
    chosen: list[Mutant] = []
    while len(chosen) < number and any(kinds.values()):
        for kind in kinds.values():
            if kind and len(chosen) < number:
                chosen.append(kind.pop())
    return chosen


# Where faults are made, and which tests are near.


def modules(names: Sequence[str]) -> list[str]:
    """The files of the mathematics; of them those that are named, as `process` or `duo`."""
    files = [f"core/src/platform_core/{name}.py" for name in CORE]
    for plugin in PLUGINS:
        for path in sorted((ROOT / f"plugins/{plugin}/src/platform_{plugin}").glob("*.py")):
            if path.name not in ("__init__.py", "plugin.py"):
                files.append(str(path.relative_to(ROOT)))
    chosen = [
        file
        for file in files
        if not names or any(name in (Path(file).stem, *file.split("/")) for name in names)
    ]
    if not chosen:
        raise SystemExit(f"no module is called {' or '.join(names)}; known: {', '.join(files)}")
    return chosen


def module_name(file: str) -> str:
    """platform_core.process of its file."""
    return ".".join(Path(file.split("/src/")[1]).with_suffix("").parts)


def imports(path: Path) -> set[str]:
    """The platform's modules that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
            found |= {f"{node.module}.{name.name}" for name in node.names}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return {name for name in found if name.startswith("platform_")}


def nearest_tests() -> dict[str, list[list[str]]]:
    """Test files of each module of the mathematics in stages: the nearest, others, and the laws.

    A file that imports the module is nearer than one that imports what imports it; then the one of
    its name comes first, then those of its package, then short ones.
    """
    tests = {
        str(path.relative_to(ROOT)): imports(path)
        for folder in ("core/tests", "plugins", "tests")
        for path in sorted((ROOT / folder).rglob("test_*.py"))
        if not {"third_party", "src"} & set(path.relative_to(ROOT).parts)
    }
    known = {module_name(file): imports(ROOT / file) for file in modules(())}
    nearest: dict[str, list[list[str]]] = {}
    for file in modules(()):
        name = module_name(file)
        users = {name} | {other for other, own in known.items() if name in own}
        direct = [test for test, own in tests.items() if name in own]
        others = [test for test, own in tests.items() if users & own and test not in direct]
        package = file.split("/src/")[0]

        def rank(test: str, stem: str = Path(file).stem, package: str = package) -> tuple:
            named = Path(test).stem.removeprefix("test_").endswith(stem)
            return not named, not test.startswith(package), (ROOT / test).stat().st_size

        ordered = sorted(direct, key=rank) + sorted(others, key=rank)
        ordered = [test for test in ordered if test != LAWS][:EVERYWHERE]
        stages = [ordered[:NEAREST], ordered[NEAREST:], [LAWS]]
        nearest[file] = [stage for stage in stages if stage]
    return nearest


# A run.


@dataclass
class Finding:
    """What came of a mutant.

    Args:
        outcome: noticed, survived, or unfinished: no test noticed it within the time limit.
        by: the test that failed.
        tests: how many were run.
        seconds: of processor time.
    """

    mutant: Mutant
    outcome: str
    by: str
    tests: int
    seconds: float


class Watching:
    """What pytest tells of the tests of one mutant."""

    def __init__(self, limit: float) -> None:
        self.limit, self.by, self.tests, self.finished = limit, "", 0, True

    def pytest_collection_modifyitems(self, items: list) -> None:
        """Of the laws, only those of the model's roles and no slow ones."""
        wanted = tuple(f"{role}:" for role in ROLES)
        items[:] = [
            item
            for item in items
            if LAWS not in item.nodeid or item.name.split("[")[-1].startswith(wanted)
        ]

    def pytest_collectreport(self, report) -> None:
        if report.failed and not self.by:
            self.by = f"{report.nodeid} (import)"

    def pytest_runtest_logreport(self, report) -> None:
        self.tests += report.when == "call"
        if report.failed and not self.by:
            self.by = report.nodeid

    def pytest_runtest_protocol(self, item) -> None:
        if time.process_time() > self.limit:
            self.finished, item.session.shouldstop = False, "the time limit"


def in_a_copy(copy: Path, tests: Sequence[str], limit: float, *, first: bool = True) -> None:
    """What a forked process does: the tests, against the sources of a copy; it never returns."""
    import pytest

    os.setpgrp()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CPU, (int(limit) + 60,) * 2)
    output = os.open(copy / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(ROOT)
    sys.path[:0] = paths = [str(copy / source / "src") for source in SOURCES]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(copy / "hypothesis")
    watching = Watching(time.process_time() + limit)
    words = ["-q", "--numprocesses=0", "-m", "not slow", "-p", "no:cacheprovider", "--tb=short"]
    words += ["-W", "ignore::pytest.PytestAssertRewriteWarning", *(["-x"] if first else [])]
    started = time.process_time()
    code = 3
    with contextlib.suppress(BaseException):
        code = int(pytest.main([*words, *tests], plugins=[watching]))
    by = watching.by or ("" if code in (0, 2) else f"pytest ends with {code}")
    found = [by, watching.tests, watching.finished, time.process_time() - started]
    (copy / "found.json").write_text(json.dumps(found))
    os._exit(0)


@dataclass
class Worker:
    """A copy of the sources, and what is tried in it now."""

    copy: Path
    pid: int = 0
    mutant: Mutant | None = None
    waiting: list[list[str]] = field(default_factory=list)
    tests: int = 0
    seconds: float = 0.0
    limit: float = 0.0

    @classmethod
    def begin(cls, folder: Path) -> "Worker":
        for source in SOURCES:
            shutil.copytree(
                ROOT / source / "src",
                folder / source / "src",
                ignore=shutil.ignore_patterns("__pycache__"),
            )
        return cls(folder)

    def start(self, mutant: Mutant, stages: list[list[str]], limit: float) -> None:
        """Writes the fault and begins with the first of the stages."""
        source = (ROOT / mutant.file).read_text()
        (self.copy / mutant.file).write_text(written(mutant, source))
        self.mutant, self.waiting, self.tests = mutant, list(stages), 0
        self.seconds, self.limit = 0.0, limit
        self._go_on()

    def _go_on(self) -> None:
        """A process of its own for the test files of the next stage."""
        tests = self.waiting.pop(0)
        (self.copy / "found.json").unlink(missing_ok=True)
        self.pid = os.fork()
        if not self.pid:
            in_a_copy(self.copy, tests, self.limit - self.seconds)

    def finding(self) -> Finding | None:
        """What came of it, once a process has ended; None if more tests are tried.

        At the end the copy is whole again.
        """
        assert self.mutant is not None
        try:
            by, tests, finished, seconds = json.loads((self.copy / "found.json").read_text())
        except FileNotFoundError:
            by, tests, finished, seconds = "no test ended it", 0, False, self.limit
        self.tests, self.seconds, self.pid = self.tests + tests, self.seconds + seconds, 0
        finished = finished and self.seconds < self.limit
        if not by and finished and self.waiting:
            return self._go_on()
        mutant, self.mutant = self.mutant, None
        shutil.copy(ROOT / mutant.file, self.copy / mutant.file)
        outcome = "noticed" if by else "survived" if finished else "unfinished"
        return Finding(mutant, outcome, by, self.tests, round(self.seconds, 1))

    def end(self) -> None:
        """Ends what this worker has started."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


def trials(
    chosen: Sequence[Mutant], workers: Sequence[Worker], *, seconds: float, until: float
) -> Iterator[Finding]:
    """The findings in the order in which they are made; no mutant begins after `until`."""
    stages, waiting = nearest_tests(), list(reversed(chosen))
    while True:
        for worker in workers:
            if not worker.pid and waiting and time.monotonic() < until:
                mutant = waiting.pop()
                worker.start(mutant, stages[mutant.file], seconds)
        running = {worker.pid: worker for worker in workers if worker.pid}
        if not running:
            return
        pid, _ = os.wait()
        finding = running[pid].finding()
        if finding is not None:
            yield finding


def doubtful(found: Iterable[Finding], worker: Worker, seconds: float) -> set[str]:
    """Those of the tests that noticed something which fail without any fault, too."""
    tests = sorted({each.by for each in found if "::" in each.by})
    if not tests:
        return set()
    failing = set()
    worker.pid = os.fork()
    if not worker.pid:
        in_a_copy(worker.copy, tests, seconds * len(tests), first=False)
    os.waitpid(worker.pid, 0)
    worker.pid = 0
    for line in (worker.copy / "output.txt").read_text().splitlines():
        if line.startswith("FAILED "):
            failing.add(line.removeprefix("FAILED ").split(" - ")[0])
    return failing


# The command.


def options(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--number", type=int, default=60, help="how many mutants are tried")
    add("--seed", type=int, default=0, help="of the sample; the same seed draws the same mutants")
    add("--module", action="append", default=[], help="only of these modules: process, duo")
    add("--minutes", type=float, default=60, help="no mutant begins after so long")
    add("--seconds", type=float, default=90, help="processor time that each mutant's tests get")
    add("--workers", type=int, default=1, help="mutants at once")
    add("--to", type=Path, help="file of the JSON record")
    add("--again", type=Path, help="a record: only the mutants that survived are tried again")
    return parser.parse_args(words)


def survivors(record: Path) -> list[Mutant]:
    """The mutants of a record that no test has noticed."""
    found = json.loads(record.read_text())["mutants"]
    return [
        Mutant(**{**one["mutant"], "span": tuple(one["mutant"]["span"])})
        for one in found
        if one["outcome"] in ("survived", "unfinished")
    ]


def said(finding: Finding) -> str:
    """A line on what came of a mutant; three if nobody noticed it."""
    mutant = finding.mutant
    where = f"{mutant.file}:{mutant.line}"
    if finding.outcome == "noticed":
        return f"noticed    {where} ({mutant.operator}) by {finding.by}"
    ended = "" if finding.outcome == "survived" else ", within the time limit"
    head = f"SURVIVED   {where} ({mutant.operator}) {finding.tests} tests{ended}"
    return f"{head}\n    - {mutant.original}\n    + {mutant.mutated}"


def prepared() -> None:
    """Imports what tests import, but nothing of the platform, so that processes begin quickly."""
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    import accelerate  # noqa: F401
    import hypothesis  # noqa: F401
    import jaxtyping  # noqa: F401
    import scipy.stats  # noqa: F401
    import torch

    torch.set_num_threads(1)
    assert not [name for name in sys.modules if name.startswith("platform_")]


def record(asked: argparse.Namespace, sites: int, found: Sequence[Finding]) -> Mapping:
    counts = {outcome: 0 for outcome in ("noticed", "survived", "unfinished")}
    for finding in found:
        counts[finding.outcome] += 1
    about = {"seed": asked.seed, "modules": asked.module, "possible": sites, "counts": counts}
    return {**about, "mutants": [asdict(finding) for finding in found]}


def main(words: Sequence[str] | None = None) -> int:
    asked = options(words)
    files = modules(asked.module)
    every = [mutant for file in files for mutant in mutants(file, (ROOT / file).read_text())]
    chosen = sample(every, asked.number, asked.seed)
    if asked.again:
        chosen = survivors(asked.again)
    print(f"{len(chosen)} of {len(every):,} mutants of {len(files)} modules", flush=True)
    prepared()
    found: list[Finding] = []
    until = time.monotonic() + 60 * asked.minutes
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        workers = [Worker.begin(Path(folder) / str(n)) for n in range(asked.workers)]
        try:
            for finding in trials(chosen, workers, seconds=asked.seconds, until=until):
                found.append(finding)
                print(f"{len(found):>3}/{len(chosen)} {said(finding)}", flush=True)
                if asked.to:
                    asked.to.write_text(json.dumps(record(asked, len(every), found), indent=1))
            for test in sorted(doubtful(found, workers[0], asked.seconds)):
                print(f"DOUBTFUL   {test} fails without any fault, too")
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        finally:
            for worker in workers:
                worker.end()
    counts = record(asked, len(every), found)["counts"]
    left = counts["survived"] + counts["unfinished"]
    print(f"{len(found)} mutants were tried, {left} survived ({counts['unfinished']} unfinished)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
