"""The command-line parser of verbs that build no composition."""

import argparse
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from platform_core.composition.options import MOST, too_many
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
    return _whole(text, least=1)


def natural(text: str) -> int:
    """Reads a whole number of at least 0; the `type` of an argument."""
    return _whole(text, least=0)


def _whole(text: str, *, least: int) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) < 20 and int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
    if len(text) >= 20 or int(text) > MOST:
        raise argparse.ArgumentTypeError(f"{text} is too much: {too_many(MOST)}")
    return int(text)
