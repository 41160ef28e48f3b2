"""The command-line parser of verbs that build no composition."""

import argparse
import os
import shlex
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from platform_core.composition.words import underscored
from platform_core.errors import UsageError


class Parser(argparse.ArgumentParser):
    """Raises a mistake as a one-line `UsageError`; reads `-` as `_` in names of options."""

    def parse_known_args(  # type: ignore[override]  # of several overloads, all of this form
        self, args: Sequence[str], namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        return super().parse_known_args(underscored(args), namespace)

    def error(self, message: str) -> NoReturn:
        """Raises the parser's message as `UsageError`, without the usage text."""
        raise UsageError(message)


def command(*words: str) -> str:
    """The command `platform` with words, to be pasted into a shell.

    Words are quoted where they need it, and the plugins that this command was told of with -p are
    named again.
    """
    named = [word for word in os.environ.get("PLATFORM_PLUGINS", "").split(",") if word]
    left_out = os.environ.get("PLATFORM_DISABLE_PLUGINS", "").split(",")
    plugins = [*named, *(f"no:{word}" for word in left_out if word)]
    return shlex.join(["platform", *(w for name in plugins for w in ("-p", name)), *words])


def show_help(prog: str, description: str | None, add: Callable[[Any], None]) -> int:
    """Prints the own options of a verb that also takes a run's, which `VERB RUN --help` shows."""
    parser = Parser(
        prog=prog,
        description=description,
        epilog=f"{prog} RUN --help also shows the options of that run, such as --data.corpus.",
        allow_abbrev=False,
    )
    add(parser)
    parser.print_help()
    return 0


def positive(text: str) -> int:
    """Reads a whole number of at least 1; the `type` of an argument."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)
