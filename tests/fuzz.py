"""Generated mistakes: command lines, YAML files, extreme options, numbers, damaged directories.

    python tests/fuzz.py arguments --number 5000 --seed 1

`numbers` gives every numeric option of every part and verb a number that no machine can serve, and
`some-numbers` those of every fifth part.

Each case is one command of `platform`, run in a process of its own in a folder of its own. It has
to end within `SECONDS`, without a traceback; and a mistake (exit code 2) has to be one line of
printable characters that leaves no file behind. `test_fuzz` runs a share of each kind.

Processes fork from this one, which has imported everything already: a case takes tenths of a
second.
"""

import argparse
import contextlib
import gc
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SECONDS = 20.0
"""A case that computes for longer hangs; so does one that takes `PATIENCE` times as long."""

PATIENCE = 6
"""Waiting that neighbours on a busy machine may cause."""

MEMORY = 12 * 2**30
"""Bytes of address space of a case."""

RESIDENT = 3 * 2**30
"""Bytes that a case may really use; a small run uses 1 GiB."""

CODES = {0, 1, 2, 75}
"""Exit codes that say what happened: done, laws broken (`check`), a mistake, interrupted."""

LINE = 1500
"""The longest error message."""

TINY = (  # noqa: SIM905
    "--backbone.hidden_size=16 --backbone.num_blocks=1 --backbone.num_heads=2 "
    "--backbone.cond_size=8 --data.length=16 --train.steps=1 --train.batch_size=2 "
    "--train.precision=fp32 --train.keep_checkpoints=1 --evaluate.sequences=2 "
    "--evaluate.on_the_way=2 --sample.number=1 --sampler.steps=2 --track.to=none"
).split()

WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]


@dataclass(frozen=True)
class Case:
    """One command, and the files that lie in its folder before it starts."""

    words: tuple[str, ...]
    files: Mapping[str, bytes] = field(default_factory=dict)
    run: bool = False
    """Whether the folder holds a finished run, `r`, under the files."""

    def __str__(self) -> str:
        files = "".join(f"  {name}: {content[:300]!r}" for name, content in self.files.items())
        return f"platform {' '.join(map(repr, self.words))[:600]}{files}"


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    """Its exit code; the negative number of a signal that killed it."""
    out: str
    errors: str
    seconds: float
    left: tuple[str, ...]
    """Paths that it made."""
    resident: int = 0
    """The most bytes of memory that it used at a time."""

    def fault(self) -> str:
        """What is wrong with this outcome; empty if nothing is."""
        if self.seconds > SECONDS:
            return f"hangs ({self.seconds:.0f} s)"
        if self.resident > RESIDENT:
            return f"uses {self.resident / 2**30:.1f} GiB"
        if "Traceback (most recent call last)" in self.errors:
            return f"traceback: {self.errors.strip().splitlines()[-1][:300]}"
        if self.code not in CODES:
            return f"exit code {self.code}: {self.errors[-300:]}"
        if self.code != 2:
            return ""
        lines = [line for line in re.split(r"[\r\n]", self.errors) if ": error: " in line]
        several = bool(lines) and re.search(r"error: \d+ mistakes, so nothing", lines[0])
        ends = self.errors.rstrip().endswith(lines[0].rstrip()) if lines else False
        if len(lines) != 1 or not (ends or several):  # a sweep tells all mistakes of its file
            return f"not one last line of error: {self.errors[-500:]!r}"
        if len(lines[0]) > LINE:
            return f"an error of {len(lines[0])} characters: {lines[0][:200]!r}"
        if re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", lines[0]):
            return f"characters that a terminal obeys: {lines[0]!r}"
        if re.search(r"error: step \d+: ", lines[0]):
            return ""  # a training that began and failed keeps its record
        return f"leaves {', '.join(self.left[:5])}: {lines[0]}" if self.left else ""


class Bench:
    """Runs cases, one after another.

    Args:
        folder: scratch; the text and the finished run that cases use are made there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        text = random.Random(0).choices(WORDS, k=3000)
        (folder / "t.txt").write_text(" ".join(text))
        self.environment = {
            "PLATFORM_CACHE": str(folder / "cache"),
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONWARNINGS": "ignore",
        }
        os.environ.update(self.environment)
        import_everything()
        made = self.outcome(Case(("run", *TINY, *TEXT, "--output=r")), keep=folder / "base")
        assert made.code == 0, made.errors
        self.finished = folder / "base" / "r"

    def outcome(self, case: Case, *, keep: Path | None = None) -> Outcome:
        """What a case comes to."""
        folder = keep or self.folder / "case"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        shutil.copy(self.folder / "t.txt", folder / "t.txt")
        if case.run:
            shutil.copytree(self.finished, folder / "r")
        for name, content in case.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        before = paths(folder)
        out, errors = self.folder / "out", self.folder / "errors"
        start = time.monotonic()
        child = os.fork()
        if not child:
            become(case.words, folder, out, errors)
        code, used = wait(child, start + PATIENCE * SECONDS)
        waited = time.monotonic() - start
        seconds = max(used.ru_utime + used.ru_stime, waited / PATIENCE)
        left = sorted(paths(folder) - before)
        said = [path.read_text(errors="replace") for path in (out, errors)]
        return Outcome(code, said[0], said[1], seconds, tuple(left), used.ru_maxrss * 1024)

    def faults(
        self, cases: Iterator[Case], number: int, *, show: bool = False
    ) -> tuple[list[tuple[Case, str]], Counter[int]]:
        """Those of the first `number` cases with what is wrong with them; and the exit codes."""
        found, codes = [], Counter[int]()
        for done, case in zip(range(1, number + 1), cases, strict=False):
            outcome = self.outcome(case)
            codes[outcome.code] += 1
            fault = outcome.fault()
            if fault:
                found.append((case, fault))
                if show:
                    print(f"\n{case}\n   {fault}", flush=True)
            if show:
                print(f"\r{done:,} of {number:,}, {len(found)} faults ", end="", file=sys.stderr)
        return found, codes


def import_everything() -> None:
    """Imports what commands need, so that processes that fork from this one need not."""
    import accelerate  # noqa: F401
    import datasets  # noqa: F401
    import docstring_parser  # noqa: F401
    import matplotlib.figure  # noqa: F401
    import torch
    import transformers.modeling_utils  # noqa: F401

    from platform_core.cli import main

    torch.set_num_threads(1)
    for words in (["plugins"], ["run", "--help"], ["eval", "--help"]):
        with (
            Path(os.devnull).open("w") as nowhere,
            contextlib.redirect_stdout(nowhere),
            contextlib.suppress(SystemExit),
        ):
            main(words)
    import platform_core.evaluation.trained
    import platform_core.training.run  # noqa: F401
    from platform_core.component import ROLES
    from platform_core.registry.loading import find_plugins

    plugins = find_plugins({})
    for role in ROLES:
        for name in plugins.names(role):
            plugins.load(role, name)
    gc.collect()
    gc.freeze()  # a process that forks would copy all memory when it collects garbage


def become(words: Sequence[str], folder: Path, out: Path, errors: Path) -> None:
    """Becomes the command, in a process that has just been made."""
    from platform_core.cli import main

    code = 1
    try:
        os.setsid()
        os.chdir(folder)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        for number, path in ((1, out), (2, errors)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdin = os.fdopen(0, closefd=False)  # without what this process has read ahead
        sys.argv = ["platform", *words]  # as in a process of its own, to its last moment
        code = main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def wait(child: int, end: float) -> tuple[int, resource.struct_rusage]:
    """The exit code of a process, and what it used; it is killed a second after `end`."""
    while time.monotonic() < end + 1:
        found, status, used = os.wait4(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status), used
        time.sleep(0.005)
    os.killpg(child, signal.SIGKILL)
    _, status, used = os.wait4(child, 0)
    return os.waitstatus_to_exitcode(status), used


def paths(folder: Path) -> set[str]:
    """Everything below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


TEXT = ("--data.corpus=text", "--data.path=t.txt")

VALUES = (
    *("", " ", "null", "~", "none", "None", "true", "yes", "nan", "inf", "-inf", ".nan", "1e400"),
    *("-1", "0", "1", "2", "3", "-0.0", "1:30", "0100", "0x10", "1_000", "1e3", "1.5", "9" * 40),
    *("9" * 5000, "1000000000000", "2147483648", "-9223372036854775809", "1e-320", "0.1", "½"),
    *("[", "]", "{", "}", "[1, 2]", "{a: 1}", "[" * 3000, "&a [*a]", "*a", "!!python/name:os.x"),
    *("!!int ''", "2024-13-45", "# a", "#include <x>", "a: b: c", "- a", "%", "@", "`", "|", ">"),
    *("é", "日本", "\u202e", "a\nb", "a\tb", "\x1b[31m", "\udcff", "a" * 5000, "../..", "/"),
    *(
        "/dev/null",
        "/proc/nothing/x",
        "t.txt",
        "t.txt/x",
        ".",
        "r",
        "r/config.yaml",
        "--",
        "-",
        "-x",
    ),
    *("--seed", "duo", "mdlm", "DUO", "uniform", "dit", "masked", "text", "bytes", "fp16", "a,b"),
)
"""Words that one option or another has taken amiss."""

FAMILIES = ("duo", "mdlm", "sedd", "d3pm", "ar", "uniform", "absorbing")


def arguments(_: Bench, seed: int) -> Iterator[Case]:
    """Command lines of every verb with a word changed, left out, doubled, swapped or put in."""
    chance = random.Random(f"arguments {seed}")
    while True:
        verb = chance.choice(tuple(COMMANDS))
        words = [verb, *chance.choice(COMMANDS[verb])]
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            words = _changed(words, chance)
        named = "".join(words[1:])
        if words[:1] == ["bench"] and "--one" not in named or words == ["run"]:
            continue  # which may be a right command, and then takes minutes
        yield Case(tuple(words), run=any(word.startswith("r") for word in words[1:]))


def _changed(words: list[str], chance: random.Random) -> list[str]:
    if not words:
        return [chance.choice(VALUES)]
    words = list(words)
    place = chance.randrange(len(words))
    kind = chance.choice(
        ("value", "value", "value", "drop", "double", "swap", "put", "typo", "new")
    )
    option, equals, _ = words[place].partition("=")
    if kind == "value" and place:
        value = chance.choice(VALUES)
        words[place] = f"{option}={value}" if equals else value
    elif kind == "drop":
        del words[place]
    elif kind == "double":
        words.insert(place, words[place])
    elif kind == "swap":
        other = chance.randrange(len(words))
        words[place], words[other] = words[other], words[place]
    elif kind == "put":
        words.insert(place + 1, chance.choice(VALUES))
    elif kind == "typo" and len(words[place]) > 3:
        letter = chance.randrange(2, len(words[place]))
        words[place] = words[place][:letter] + chance.choice("xe-._ ") + words[place][letter + 1 :]
    elif kind == "new":
        words.insert(place + 1, f"--{chance.choice(OPTIONS)}={chance.choice(VALUES)}")
    return words


def _run(process: str) -> list[str]:
    return [f"--process={process}", *TINY, *TEXT, "--output=o"]


COMMANDS: Mapping[str, Sequence[Sequence[str]]] = {
    "run": [
        *(_run(process) for process in FAMILIES),
        ["--resume=r"],
        ["--resume", "r", "--train.steps=2"],
        ["--init=r", *TINY, *TEXT, "--output=o"],
        [*_run("mdlm"), "--schedule=cosine", "--sampler=ancestral", "--sampler.top_p=0.9"],
        [*_run("duo"), "--callbacks=early-stopping", "--callbacks.early_stopping.patience=1"],
    ],
    "eval": [
        ["r"],
        ["r", "--evaluate.draws=2", "--evaluate.batch_size=2", "--json"],
        ["r", "--on=text=t.txt"],
        ["r", "--used"],
        ["r", "--judge=r", "--sample.number=1"],
        ["r", "--tasks=piqa", "--limit=1"],
    ],
    "sample": [
        ["r"],
        ["r", "--sample.number=2", "--sample.prompt=al", "--seed=3", "--sampler.steps=2"],
        ["r", "--to=s.txt", "--format=jsonl"],
        ["r", "--trajectory=t.svg"],
        ["r", "--watch", "--fps=1000", "--trajectory=t.html"],
        ["r", "--sample.infill=al__be"],
    ],
    "chat": [["r"], ["r", "--sampler.steps=2", "--fps=3", "--seed=3"]],
    "show": [["r"], ["t.txt"]],
    "tokenizer": [["train", "--size=300", *TEXT, "--output=o"]],
    "compare": [
        ["r", "r"],
        ["r", "--format=latex", "--to=o"],
        ["r", "r", "--metric=entropy", "--mark"],
    ],
    "report": [["r"], ["r", "--format=csv", "--to=o"]],
    "sweep": [["t.txt", "--dry_run"], ["t.txt", "--jobs=2", "--output=o"], ["--resume", "r"]],
    "import": [["r", "--output=o"], ["t.txt", "--output=o", "--process=duo"]],
    "export": [["r", "o"], ["r", "o", "--weights=raw"]],
    "new-plugin": [["blue", "--kind=sampler", "--output=o"], ["my-noise"]],
    "check": [["cosine", "--json"], ["log-linear", "-v"], ["schedule:cosine"]],
    "plugins": [["--json"], ["-v"]],
    "bench": [["--one={}"], ["--what=objectives", "--states=0"]],
    "dashboard": [["--port=x"], ["nowhere", "--rebuild"]],
    "-p": [["no:aim", "plugins"], ["t.txt", "plugins"], ["o.py", "plugins"]],
}
"""Verb -> command lines that are nearly right."""


def _options() -> list[str]:
    from platform_core.composition import options

    plain = {
        "data": options.DataOptions,
        "train": options.TrainOptions,
        "evaluate": options.EvaluateOptions,
        "sample": options.SampleOptions,
        "track": options.TrackOptions,
    }
    named = [f"{section}.{name}" for section, kind in plain.items() for name in _fields(kind)]
    parts = ["sampler.steps", "sampler.top_p", "backbone.hidden_size", "backbone.num_heads"]
    return [*named, *parts, "backbone.num_blocks", "backbone.dropout", "seed", "process.states"]


def _fields(kind: type) -> list[str]:
    return list(kind.__dataclass_fields__)  # type: ignore[attr-defined]


OPTIONS = _options()


EXTREMES = (
    *("0", "1", "2", "3", "7", "-1", "1000000000000", "2147483648", "9" * 30, "nan", "inf"),
    *("-inf", "1e-320", "1e300", "0.0", "1.0", "0.5", "-0.5", "1.0000001", "0.9999999", "1e-12"),
    *("true", "false", "null", "none"),
)


def extremes(_: Bench, seed: int) -> Iterator[Case]:
    """Real runs with one to three options at the edge of what their types allow."""
    chance = random.Random(f"extremes {seed}")
    while True:
        words = ["run", *_run(chance.choice(FAMILIES))]
        for _ in range(chance.choice((1, 1, 2, 3))):
            option, value = chance.choice(OPTIONS), chance.choice(EXTREMES)
            words = [word for word in words if not word.startswith(f"--{option}=")]
            words.append(f"--{option}={value}")
        yield Case(tuple(words))


HUGE = 10**12
"""A number that no machine can serve."""

OF_VERBS: Mapping[str, Sequence[Sequence[str]]] = {
    "eval": [
        *(["r", f"--{name}"] for name in ("evaluate.batch_size", "evaluate.draws", "data.length")),
        *(["r", "--tasks=piqa", f"--{name}"] for name in ("limit", "draws", "num_fewshot")),
        *(["r", "--judge=r", f"--{name}"] for name in ("judge_length", "sample.number")),
        ["r", "--evaluate.sequences"],
    ],
    "sample": [
        *(["r", f"--sample.{name}"] for name in ("number", "length", "batch_size", "guidance")),
        ["r", "--sampler.steps"],
        ["r", "--seed"],
        ["r", "--fps"],
    ],
    "tokenizer": [["train", *TEXT, "--output=o", "--size"]],
    "sweep": [["s.yaml", "--dry_run", "--jobs"], ["s.yaml", "--output=o", "--retry"]],
    "bench": [[f"--{name}"] for name in ("states", "batch", "length", "width")],
    "import": [["r", "--output=o", "--mask_id"]],
    "dashboard": [["--port"]],
}
"""Verb -> command lines whose last word is an option without its number."""

SWEPT = "set: {{process: mdlm, data.corpus: text, data.path: t.txt}}\nseeds: {seeds}\n"


def numbers(_: Bench, __: int) -> Iterator[Case]:
    """Each numeric option of every part and verb with `HUGE`, and each list of a sweep."""
    return _numbers(part_options())


def some_numbers(_: Bench, seed: int) -> Iterator[Case]:
    """`numbers` of every fifth part, from the one that the seed says, and of every verb."""
    return _numbers(part_options(seed % 5, 5))


def _numbers(options: Iterator[tuple[list[str], str]]) -> Iterator[Case]:
    for words, option in options:
        yield Case(("run", *words, "--output=o", f"--{option}={HUGE}"))
    files = {"s.yaml": SWEPT.format(seeds=[1]).encode()}
    for verb, commands in OF_VERBS.items():
        for words in commands:
            yield Case((verb, *words[:-1], f"{words[-1]}={HUGE}"), files, run="r" in words)
    for seeds in (HUGE, 9_999, 10_001):
        axes = "axes: {train.steps: [1, 2, 3]}\n" if seeds < HUGE else ""
        files = {"s.yaml": (SWEPT.format(seeds=seeds) + axes).encode()}
        yield Case(("sweep", "s.yaml", "--dry_run"), files)


def part_options(first: int = 0, every: int = 1) -> Iterator[tuple[list[str], str]]:
    """Every numeric option of a run once, with the words of a small run whose parts have it.

    Args:
        first: number of the part to begin with.
        every: distance to the next part.
    """
    from platform_core.component import ROLES
    from platform_core.registry.loading import find_plugins

    plugins, seen = find_plugins({}), set()
    parts = [(role, name) for role in (*ROLES, "callback") for name in plugins.names(role)]
    for role, name in parts[first::every]:
        words, options = _small_run(role, name, plugins)
        for option in options:
            section = option.partition(".")[0]
            of_part = section in (*ROLES, "callbacks")
            known = (option, name if of_part else "")
            if known not in seen and (not of_part or role.startswith(section.rstrip("s"))):
                seen.add(known)
                yield [w for w in words if not w.startswith(f"--{option}=")], option


def _small_run(role: str, name: str, plugins: Any) -> tuple[list[str], list[str]]:
    """The words of a run with a part, and its numeric options."""
    from platform_core.composition.compose import Parsers, compose
    from platform_core.errors import UsageError

    chosen = f"--{'callbacks' if role == 'callback' else role}={name}"
    small = [word for word in TINY if role != "sampler" or not word.startswith("--sampler.")]
    refused: UsageError | None = None
    for process in [name] if role == "process" else plugins.names("process"):
        parsers: Parsers = {}
        for left_out in ("no option", "--sampler.", "--backbone.cond_size"):
            kept = [word for word in small if not word.startswith(left_out)]
            words = [f"--process={process}", *([] if role == "process" else [chosen]), *kept, *TEXT]
            try:
                compose(words, plugins, prog="platform run", environ={}, parsers=parsers)
            except UsageError as error:
                refused = error
                continue
            (arguments,) = parsers.values()
            return words, arguments.numeric()
    raise AssertionError(f"{role} {name} goes with no process: {refused}")


def yaml_files(_: Bench, seed: int) -> Iterator[Case]:
    """Config files, sweeps and corpora: of nearly the right form, and of bytes."""
    chance = random.Random(f"yaml {seed}")
    verbs: Sequence[tuple[str, ...]] = (
        ("run", *TINY, *TEXT, "--output=o", "--config=f.yaml", "--print_config"),
        ("run", *TINY, *TEXT, "--output=o", "--config", "f.yaml"),
        ("sweep", "f.yaml", "--dry_run"),
        ("sweep", "f.yaml", "--output=o", "--dry_run"),
        ("run", *TINY, "--data.corpus=f.yaml", "--output=o"),
    )
    while True:
        content = chance.choice((_structured, _structured, _spoiled, _hostile))(chance)
        yield Case(chance.choice(verbs), {"f.yaml": content})


SCALARS = (
    *("1", "0", "-1", "1e3", "0100", "1:30", "yes", "null", "~", "''", '""', "duo", "mdlm", "nan"),
    *(
        ".inf",
        "2024-01-01",
        "2024-13-45",
        "2024-01-01 25:61:00",
        "!!int ''",
        "!!float x",
        "!!binary /",
    ),
    *(
        '"\\U00110000"',
        '"\\ud800"',
        "!!python/object/apply:os.system [ls]",
        "!!set {a}",
        "&a x",
        "*a",
    ),
    *("!!timestamp x", "!!bool 2", "9" * 5000, "0x" + "f" * 3000, "<<", "=", "[a", "{b", "? a"),
    *("|", ">", "- -", "a: b: c", "%TAG", "@a", "`a", "\t", "#x", "'it''s'", "é", "\x1b[1m"),
)


def _structured(chance: random.Random) -> bytes:
    sections = ("process", "data", "train", "sample", "seed", "set", "axes", "runs", "seeds", "x")
    lines = []
    for _ in range(chance.randrange(1, 5)):
        section = chance.choice(sections)
        form = chance.randrange(4)
        if form == 0:
            lines.append(f"{section}: {chance.choice(SCALARS)}")
            continue
        lines.append(f"{section}:")
        for _ in range(chance.randrange(1, 3)):
            key = chance.choice((*OPTIONS, "name", "steps", "length", "1", "null", "[a]", "<<"))
            key = key.partition(".")[2] if form == 1 and "." in key else key
            value = chance.choice(SCALARS)
            lines.append(f"  {key}: " + (f"[{value}, {value}]" if form == 3 else value))
    return "\n".join(lines).encode("utf-8", "surrogatepass") + b"\n"


def _spoiled(chance: random.Random) -> bytes:
    content = bytearray(_structured(chance))
    for _ in range(chance.randrange(1, 4)):
        content[chance.randrange(len(content))] = chance.randrange(256)
    return bytes(content)


def _hostile(chance: random.Random) -> bytes:
    aliases = "\n".join(
        ["a0: &a0 [x]"] + [f"a{i}: &a{i} [{f'*a{i - 1},' * 9}]" for i in range(1, 12)]
    )
    return chance.choice(
        (
            b"[" * 3000,
            b"{a: " * 3000,
            b"- " * 5000,
            aliases.encode(),
            b"train: &a {steps: *a}",
            b"data: &a [*a]",
            b"? [a, b]\n: c",
            b"? {a: 1}\n: 2",
            b"1: 2\ntrue: 3\nnull: 4",
            b"seed: 1\nseed: 2",
            b"train: {steps: 1}\ntrain: {steps: 2}",
            b"--- 1\n--- 2\n",
            b"\xff\xfe" + "seed: 1".encode("utf-16-le"),
            b"\xef\xbb\xbfseed: 1",
            b"seed: \x00",
            b"a" * 2_000_000,
            b"seed: " + b"1" * 5000,
            b"x: " + b"'" + b"y" * 100_000,
            b"<<: *a",
            b"<<: {seed: 1}",
            b"\n" * 100_000 + b"seed: [",
            bytes(chance.randrange(256) for _ in range(chance.randrange(1, 200))),
        )
    )


READERS: Sequence[tuple[str, ...]] = (
    ("eval", "r"),
    ("sample", "r"),
    ("show", "r"),
    ("run", "--resume", "r"),
    ("run", "--resume", "r", "--train.steps=2"),
    ("run", "--init=r", *TINY, *TEXT, "--output=o"),
    ("compare", "r", "r"),
    ("export", "r", "o"),
    ("eval", "r", "--judge=r", "--sample.number=1"),
)
"""Commands that read a run directory."""


def damage(bench: Bench, seed: int) -> Iterator[Case]:
    """Run directories with one file damaged, and a command that reads them."""
    files = sorted(path for path in bench.finished.rglob("*") if path.is_file())
    chance = random.Random(f"damage {seed}")
    while True:
        path = chance.choice(files)
        name = str(Path("r") / path.relative_to(bench.finished))
        content = _damaged(path.read_bytes(), chance)
        yield Case(chance.choice(READERS), {name: content}, run=True)


def _damaged(content: bytes, chance: random.Random) -> bytes:
    kind = chance.randrange(7)
    if kind == 0:
        return content[: chance.randrange(max(1, len(content)))]
    if kind == 1 and content:
        spoiled = bytearray(content)
        for _ in range(chance.choice((1, 1, 4, 64))):
            spoiled[chance.randrange(len(spoiled))] = chance.randrange(256)
        return bytes(spoiled)
    if kind == 2:
        return chance.choice(
            (b"", b"null", b"[]", b"{}", b"1", b'"x"', b"[null]", b"{", b"\xff\xfe")
        )
    if kind == 3:
        return content + content
    if kind == 4:
        return bytes(chance.randrange(256) for _ in range(chance.randrange(1, 400)))
    return _changed_json(content, chance)


def _changed_json(content: bytes, chance: random.Random) -> bytes:
    """A file of JSON with one value replaced; another file cut in two."""
    try:
        tree = json.loads(content)
    except ValueError:
        return content[len(content) // 2 :]
    places: list[tuple[dict[str, object] | list[object], object]] = []
    pending = [tree]
    while pending:
        node = pending.pop()
        keys = (
            list(node)
            if isinstance(node, dict)
            else range(len(node))
            if isinstance(node, list)
            else ()
        )
        places += [(node, key) for key in keys]
        pending += [node[key] for key in keys]
    if not places:
        return b"[]"
    node, key = chance.choice(places)
    if chance.randrange(4) == 0:
        del node[key]  # type: ignore[arg-type]
    else:
        values: Sequence[object] = (None, [], {}, -3, 9, 10**30, "x", 1e400, True, [[]], "a" * 1000)
        node[key] = chance.choice(values)  # type: ignore[index, call-overload]
    return json.dumps(tree).encode()


KINDS: Mapping[str, Callable[[Bench, int], Iterator[Case]]] = {
    "arguments": arguments,
    "yaml": yaml_files,
    "extremes": extremes,
    "damage": damage,
    "numbers": numbers,
    "some-numbers": some_numbers,
}
"""Kind of case -> its generator, given a bench and a seed."""


def main() -> int:
    """Runs many cases of each kind that was asked for, and says what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("kinds", nargs="+", metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--number", type=int, default=1000, metavar="N", help="default: 1000")
    parser.add_argument("--seed", type=int, default=0, help="of the cases (default: 0)")
    asked = parser.parse_args()
    if not set(asked.kinds) <= set(KINDS):
        parser.error(f"kinds: {', '.join(KINDS)}")
    faults = 0
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        for kind in asked.kinds:
            faults += report(bench, kind, asked.number, asked.seed)
    return int(faults > 0)


def report(bench: Bench, kind: str, number: int, seed: int) -> int:
    """Runs cases of one kind, and prints what is wrong with which; how many those are."""
    start = time.monotonic()
    found, codes = bench.faults(KINDS[kind](bench, seed), number, show=True)
    ended = ", ".join(f"{number:,} with exit code {code}" for code, number in sorted(codes.items()))
    print(f"\n{number:,} {kind} in {time.monotonic() - start:.0f} s: {ended}")
    grouped = Counter(re.sub(r"\d+|'[^']*'", "…", fault)[:160] for _, fault in found)
    for fault, times in grouped.most_common():
        print(f"{times:5} {fault}", flush=True)
    return len(found)


if __name__ == "__main__":
    raise SystemExit(main())
