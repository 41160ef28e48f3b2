"""`platform show RUN`: one screen on a run: what it is, how it learned, what it writes, its making.

Reads the record alone, so it takes no torch and no weights, and works while the run trains.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from textwrap import wrap
from typing import Any, NamedTuple

from platform_core.cli.parser import Parser
from platform_core.component import ROLES
from platform_core.errors import UsageError, reason
from platform_core.record import metrics
from platform_core.record.bounds import BOUNDS
from platform_core.record.cards import RESULT, UNSAID, Measurement, at
from platform_core.record.directory import BETWEEN_SAMPLES, RunDirectory
from platform_core.record.files import read_json
from platform_core.record.progress import command
from platform_core.record.results import measurements
from platform_core.record.tracker import when_began
from platform_core.record.yaml_tree import read_tree

WIDTH = 79
"""Columns of the screen."""
INDENT = "  "
SPARKS = "▁▂▃▄▅▆▇█"
"""From the lowest value of a curve to its highest."""
POINTS = 20
"""Points of a curve at most."""
MOST_BOUNDS = 4
MOST_LINES = 4
"""Lines of the sample at most."""

CURVES = (("bits_per_character", "bits/character"), ("nats_per_token", "nats/token"))
"""Metrics of a bound, the first of which that was logged is shown, and their names."""

NGRAMS = {"unigram_bits": "unigram", "bigram_bits": "bigram", "fivegram_bits": "5-gram"}


class Shown(NamedTuple):
    """The record of a run, as far as it goes."""

    directory: RunDirectory
    config: Mapping[str, Any]
    result: Mapping[str, Any]
    """The figures at the end, their card among them; empty while the run trains."""
    measured: Sequence[Measurement]
    logged: Sequence[Mapping[str, Any]]
    environment: Mapping[str, Any]


def main(argv: Sequence[str]) -> int:
    """Prints the screen."""
    parser = Parser(prog="platform show", description=__doc__, allow_abbrev=False)
    parser.add_argument("run", metavar="RUN", help="directory of the run")
    shown = read(RunDirectory.existing(parser.parse_args(list(argv)).run))
    sections = (what_it_is, curves, bounds, sample, how_it_was_made, how_to_go_on)
    try:
        whole = [lines for section in sections if (lines := list(section(shown)))]
    except UsageError:
        raise
    except (AttributeError, OverflowError, TypeError, ValueError) as error:
        path = shown.directory.path
        raise UsageError(f"the record of {path} is damaged: {reason(error)}") from error
    print("\n\n".join("\n".join(lines) for lines in whole))
    return 0


def read(directory: RunDirectory) -> Shown:
    """The record of a run.

    Raises:
        UsageError: a file of it is damaged, or of a later version of the platform.
    """
    config = read_tree(directory.config, "config file")
    if not isinstance(config, dict) or not all(isinstance(config.get(r), dict) for r in ROLES):
        raise UsageError(f"{directory.config} is damaged: it does not name all parts of a run")
    measured = measurements(directory, directory.path.name)
    there = directory.environment.exists()
    return Shown(
        directory,
        config,
        measured[0].record.to_dict() if measured and measured[0].name == RESULT else {},
        measured,
        metrics.read(directory.metrics),
        read_json(directory.environment) if there else {},
    )


def what_it_is(shown: Shown) -> Iterator[str]:
    """The run, its parts and their sizes."""
    names = {role: at(shown.config, f"{role}.name") for role in ROLES}
    path, what = f"{shown.directory.path}:", f"{names['process']} with {names['backbone']}"
    first = f"{path} {what}, {_done(shown)}"
    yield from [first] if len(first) <= WIDTH else [path, f"{INDENT}{what}, {_done(shown)}"]
    size = at(shown.config, "backbone.size")
    sized = {**names, "backbone": f"{names['backbone']} ({size})"} if _is(size) else names
    yield from _listed([f"{role} {name}" for role, name in sized.items()], "  ")
    corpus = _said(shown.config, "data.corpus", "{} in sequences of ")
    yield from _listed(
        [
            _said(shown.result, "parameters", "{:,} weights"),
            f"{corpus}{at(shown.config, 'data.length')} tokens",
            _said(shown.result, "card.tokenizer.vocab_size", "{:,} kinds of tokens"),
        ]
    )


def _done(shown: Shown) -> str:
    """How far its training is."""
    asked = at(shown.config, "train.steps")
    done = shown.result.get("steps") if shown.result else None
    if done is not None:
        why = f" (stopped early: {shown.result['stopped']})" if "stopped" in shown.result else ""
        return f"{done:,} steps{why}"
    if _is_imported(shown):
        return "imported"
    at_least = max([*shown.directory.steps(), *(int(r["step"]) for r in shown.logged)], default=0)
    return f"{at_least:,} of {asked:,} steps so far" if _is(asked) else f"{at_least:,} steps so far"


def curves(shown: Shown) -> Iterator[str]:
    """The bound on the way and the training's loss, each as a line of bars."""
    split = at(shown.config, "evaluate.split")
    for key, name in CURVES:
        points = _points(shown, str(split), key)
        if points:
            yield _curve(f"{split} {name}", points)
            break
    points = _points(shown, "train", "loss")
    if points:
        yield _curve("training loss", points)


def _points(shown: Shown, subset: str, key: str) -> list[tuple[int, float]]:
    found = [(r["step"], r.get(key)) for r in shown.logged if r["subset"] == subset]
    return [(step, v) for step, v in found if isinstance(v, int | float) and math.isfinite(v)]


def _curve(name: str, points: Sequence[tuple[int, float]]) -> str:
    values = [value for _, value in points]
    ends = f"{values[0]:5.3g} {sparkline(values)} {values[-1]:.3g}"
    return _cut(f"{INDENT}{name:26} {ends} at step {points[-1][0]:,}")


def sparkline(values: Sequence[float]) -> str:
    """Finite values as bars of one character; of many, the means of equal parts of them."""
    parts = min(POINTS, len(values))
    cuts = [len(values) * part // parts for part in range(parts + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in zip(cuts, cuts[1:], strict=False)]
    low, high = min(means), max(means)
    steps = (len(SPARKS) - 1) / (high - low) if high > low else 0.0
    return "".join(SPARKS[round((mean - low) * steps)] for mean in means)


def bounds(shown: Shown) -> Iterator[str]:
    """The bounds on -log p that were measured, those of the end first, and the n-grams."""
    found = [m for m in shown.measured if m.figure("bits_per_character") is not None]
    grams = [f"{n} {shown.result[key]:.3f}" for key, n in NGRAMS.items() if key in shown.result]
    if found:
        yield f"{INDENT}bits per character of held-out text, and its standard error:"
    for measured in found[:MOST_BOUNDS]:
        yield _cut(f"    {_where(measured):28} {_bits(measured)}")
    others = len(shown.measured) - len(found[:MOST_BOUNDS]) - (bool(shown.result) and not found)
    if others:
        yield _cut(f"    and {others} more in {shown.directory.evaluations}")
    if grams:
        yield _cut(f"    {'n-grams of that text':28} {', '.join(grams)}")
    if "note" in shown.result:
        yield from _wrapped(str(shown.result["note"]))


def _where(measured: Measurement) -> str:
    """The text, protocol and weights of a bound, in a few words."""
    keys = ("data.corpus", "evaluate.split", "evaluate.protocol", "evaluate.weights")
    facts = [str(measured.fact(key)) for key in keys]
    return measured.name if UNSAID in facts else f"{facts[0]} {facts[1]}, {facts[2]}, {facts[3]}"


def _bits(measured: Measurement) -> str:
    bits = BOUNDS[0].value(measured)
    error, perplexity = BOUNDS[0].error(measured), measured.figure("perplexity")
    return (
        ("" if measured.exact else "at most ")
        + f"{bits:.3f}"
        + (f" ± {error:.3f}" if error is not None else "")
        + (f", perplexity {perplexity:.4g}" if perplexity else "")
    )


def sample(shown: Shown) -> Iterator[str]:
    """The newest sample, or its beginning."""
    written = sorted(shown.directory.samples.glob("step-*.txt"))
    final = shown.directory.samples / "final.txt"
    if not final.is_file() and not written:
        return
    file = final if final.is_file() else written[-1]
    whole = file.read_text(encoding="utf-8", errors="replace")
    if not whole.strip():  # a run that was told to write none
        return
    text = whole.split(BETWEEN_SAMPLES)[0]
    plain = "".join(letter if letter.isprintable() else " " for letter in text)
    yield f"{INDENT}a sample, of {file.relative_to(shown.directory.path)}:"
    lines = wrap(plain, WIDTH - 4) or [""]
    more = " ..." if len(lines) > MOST_LINES else ""
    yield from (f"    {line}" for line in lines[: MOST_LINES - 1])
    yield from (f"    {line[: WIDTH - 8]}{more}" for line in lines[MOST_LINES - 1 : MOST_LINES])


def how_it_was_made(shown: Shown) -> Iterator[str]:
    """When, with which versions, on what, and how long it took."""
    machine, result = shown.environment, shown.result
    began, commit = when_began(shown.directory), machine.get("commit")
    precision = {"no": "fp32"}.get(str(machine.get("precision")), machine.get("precision"))
    versions = machine.get("packages", {})
    yield from _listed(
        [
            time.strftime("%Y-%m-%d %H:%M", time.localtime(began)) if began else "",
            f"commit {commit[:10]}{commit[40:]}" if isinstance(commit, str) else "",
            *(f"{n} {versions[n]}" for n in ("dlm-platform-core", "torch") if n in versions),
            _said(machine, "python", "Python {}"),
        ]
    )
    yield from _listed(
        [
            _said(machine, "device", "on {}"),
            precision or "",
            _said(machine, "threads", "{} thread(s)"),
            _said(result, "seconds", "trained in {:,.0f} s"),
            _said(result, "seconds_evaluating", "evaluated in {:,.0f} s"),
            f"peak memory {peak / 1e9:.2f} GB" if (peak := result.get("peak_rss_bytes")) else "",
        ]
    )


def how_to_go_on(shown: Shown) -> Iterator[str]:
    """Commands to paste."""
    path, steps = shown.directory.path, shown.result.get("steps")
    if shown.directory.steps():
        yield f"{INDENT}{command('sample', path, '--watch')}"
        yield f"{INDENT}{command('chat', path)}"
        yield f"{INDENT}{command('eval', path, '--evaluate.split', 'test')}"
    if _is_imported(shown):
        yield f"{INDENT}{command('run', '--init', path)}"
    else:
        longer = ("--train.steps", 2 * steps) if isinstance(steps, int) and steps else ()
        yield f"{INDENT}{command('run', '--resume', path, *longer)}"


def _is_imported(shown: Shown) -> bool:
    return (shown.directory.path / "import.json").is_file()


def _said(values: Mapping[str, Any], place: str, words: str) -> str:
    """The value at a place of the record in words; nothing where the record does not say it."""
    value = at(values, place)
    return words.format(value) if _is(value) else ""


def _is(value: object) -> bool:
    """Whether the record says a value, of which `at` returns a word or nothing if it does not."""
    return isinstance(value, int | float | str) and value not in ("", UNSAID)


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 3]}..."


def _listed(facts: Sequence[str], between: str = ", ") -> list[str]:
    """Those of some facts that are not empty in indented lines, none of which ends inside one."""
    whole = between.join(fact.replace(" ", "\0") for fact in facts if fact)
    return [line.replace("\0", " ") for line in _wrapped(whole)]


def _wrapped(text: str) -> list[str]:
    return wrap(
        text, WIDTH, initial_indent=INDENT, subsequent_indent=INDENT, break_on_hyphens=False
    )
