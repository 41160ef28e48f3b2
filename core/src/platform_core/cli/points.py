"""`platform eval RUN --sweep KEY=VALUE,VALUE ...`: one measurement for each value of an option.

    --sweep sampler.temperature=.6,.8 sampler=ancestral,ordered    ->  4 points, each KEY=VALUE ...

Every point is composed and checked before the first is measured. A point is known by the digest of
all that was asked for and of the weights it was asked of, which its card keeps; so the same command
goes on where it was stopped, and a value that was measured alone is a point too.
"""

import contextlib
import io
import itertools
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from platform_core.composition.compose import Composition
from platform_core.composition.words import underscored
from platform_core.errors import UsageError
from platform_core.record.cards import Card, Record
from platform_core.record.directory import RunDirectory
from platform_core.record.files import digest_of

ASKED = "asked"
"""The fact of a card that says which request it answers, as a digest."""

NOT_ASKED = ("run", "json", "sweep", "again")
"""Own arguments of the verb that do not change what is measured."""

OF_THE_PROCESS = ("config", "train.precision")
"""Options that one process reads once."""

Compose = Callable[[Sequence[str]], tuple[Composition, Namespace]]


@dataclass(frozen=True)
class Point:
    """One measurement that is asked for.

    Args:
        words: the values of the sweep, such as sampler.temperature=0.6; none without a sweep.
        composition: the run's, with the options of the point.
        asked: values of the verb's own arguments.
    """

    words: tuple[str, ...]
    composition: Composition
    asked: Namespace

    def digest(self, name: str, directory: RunDirectory) -> str:
        """What tells the point from all others of a run, whose newest weights it is measured on."""
        own = {key: value for key, value in vars(self.asked).items() if key not in NOT_ASKED}
        steps = directory.steps()
        whole = [name, self.composition.config, sorted(own.items()), steps[-1:]]
        return digest_of(whole)


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the options of sweeps to the verb."""
    parser.add_argument(
        "--sweep",
        nargs="+",
        default=[],
        metavar="KEY=VALUE,VALUE",
        help="measure once for each value of an option, or for each combination of several, such "
        "as sampler.temperature=.6,.8,1; values that have been measured are left as they are",
    )
    parser.add_argument(
        "--again", action="store_true", help="measure values of --sweep again that are there"
    )


def points(argv: Sequence[str], asked: Namespace, compose: Compose) -> list[Point]:
    """All points of a sweep, composed and checked; the same point is there once.

    Args:
        argv: the words after the verb.
        asked: their values.
        compose: composes other words in place of these.

    Raises:
        UsageError: a word of --sweep names no values, an option is given twice, or a value is one
            that the option cannot have.
    """
    given = {word.partition("=")[0] for word in underscored(argv)}
    axes = [_axis(word, given) for word in asked.sweep]
    keys = [key for key, _ in axes]
    if len(set(keys)) < len(keys):
        raise UsageError("--sweep names an option twice; give it all of its values at once")
    found: dict[str, Point] = {}
    shown: set[str] = set()
    for values in itertools.product(*(values for _, values in axes)):
        words = tuple(f"{key}={value}" for key, value in zip(keys, values, strict=True))
        with notes_once(shown):
            composition, own = compose([*argv, *(f"--{word}" for word in words)])
        point = Point(words, composition, own)
        others = {key: getattr(own, key, None) for key in keys}
        found.setdefault(digest_of([composition.config, sorted(others.items())]), point)
    return list(found.values())


def _axis(word: str, given: set[str]) -> tuple[str, list[str]]:
    key, _, listed = word.partition("=")
    key, values = underscored([f"--{key}"])[0].removeprefix("--"), listed.split(",")
    if not key or not all(values):
        raise UsageError(
            f"--sweep {word} names no values; give KEY=VALUE,VALUE such as "
            "sampler.temperature=.6,.8,1"
        )
    if key in (*NOT_ASKED, *OF_THE_PROCESS) or f"--{key}" in given:
        why = "is given as well" if f"--{key}" in given else "is no option to sweep"
        raise UsageError(f"--sweep {word}: --{key} {why}; leave it out")
    return key, values


@contextlib.contextmanager
def notes_once(shown: set[str]) -> Iterator[None]:
    """Notes of composition are shown once, not once for each point."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        yield
    for line in said.getvalue().splitlines():
        if line not in shown:
            print(line, file=sys.stderr)
        shown.add(line)


def answered(record: Record, digest: str) -> Record:
    """The record, whose card says which request it answers."""
    return replace(record, card=Card({**record.card.facts, ASKED: digest}))


def known(kept: Mapping[str, object]) -> dict[str, str]:
    """Digest of a request -> name of the measurement that answers it.

    Args:
        kept: the measurements of a run by name, as plain values.
    """
    found = {}
    for name, values in kept.items():
        card = values.get("card", {}) if isinstance(values, Mapping) else {}
        if isinstance(card, Mapping) and ASKED in card:
            found[str(card[ASKED])] = name
    return found
