"""The parser of verbs that compose nothing."""

import argparse
from typing import NoReturn

from platform_core.errors import UsageError


class Parser(argparse.ArgumentParser):
    """Reports a mistake by raising, in one line."""

    def error(self, message: str) -> NoReturn:
        """The parser's complaint without its usage."""
        raise UsageError(message)


def positive(text: str) -> int:
    """A whole number of at least 1, as an argument's type."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)
