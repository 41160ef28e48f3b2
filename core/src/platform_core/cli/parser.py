"""The parser of verbs that compose nothing."""

import argparse
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from platform_core.composition.words import underscored
from platform_core.errors import UsageError


class Parser(argparse.ArgumentParser):
    """Reports a mistake by raising, in one line; takes `-` for `_` in names of options."""

    def parse_known_args(  # type: ignore[override]  # of several overloads, all of this form
        self, args: Sequence[str], namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        return super().parse_known_args(underscored(args), namespace)

    def error(self, message: str) -> NoReturn:
        """The parser's complaint without its usage."""
        raise UsageError(message)


def show_help(prog: str, description: str | None, add: Callable[[Any], None]) -> int:
    """Prints the words of a verb that also takes the options of a run, which `RUN --help` shows."""
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
    """A whole number of at least 1, as an argument's type."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)
