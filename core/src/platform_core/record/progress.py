"""What long work shows of itself on standard error, and commands that can be pasted."""

import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from os import environ
from typing import TypeVar

DELAY = 2.0
"""Seconds of work before a bar appears."""

Item = TypeVar("Item")


def shown(items: Sequence[Item], what: str, *, unit: str, show: bool = True) -> Iterable[Item]:
    """The items, with a bar that says how many are done and how long the others take.

    In a file or a pipe, where each state of a bar would be a line, there is none.

    Args:
        items: what is worked on, one after the other.
        what: what is being done, in a word.
        unit: what an item is called.
        show: whether to show anything; False in all processes but one.
    """
    if not show or not sys.stderr.isatty():
        return items
    from tqdm import tqdm

    bar: Iterator[Item] = tqdm(
        items, desc=what, unit=unit, delay=DELAY, leave=False, dynamic_ncols=True
    )
    return bar


def working(what: str) -> None:
    """Says on a terminal what is being done, until the next call; nothing elsewhere.

    Args:
        what: in a few words; empty to take back what was said.
    """
    if sys.stderr.isatty():
        print(f"\r\033[K{what and f'{what} ...'}", end="", file=sys.stderr, flush=True)


def command(*words: object) -> str:
    """A command of `platform` to paste into a shell, with the plugins that `-p` names and
    leaves out here.
    """
    named = filter(None, environ.get("PLATFORM_PLUGINS", "").split(","))
    left_out = filter(None, environ.get("PLATFORM_DISABLE_PLUGINS", "").split(","))
    plugins = [*named, *(f"no:{name}" for name in left_out)]
    parts = [part for name in plugins for part in ("-p", name)]
    return shlex.join(["platform", *parts, *map(str, words)])
