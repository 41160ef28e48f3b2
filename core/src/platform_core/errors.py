"""Errors that users can fix, helpers that word error messages, and exit codes.

Each error is shown as one line on standard error with exit code 2, without a traceback.
"""

import os
import re
from collections.abc import Iterable, Sequence

EXIT_MISTAKE = 2
"""Exit code after a user's mistake or a fault of the machine (full disk), with one line on it."""
EXIT_INTERRUPTED = 75
"""Exit code after SIGTERM or SIGUSR1, once the run is saved and can be resumed (EX_TEMPFAIL)."""
EXIT_CTRL_C = 130
"""Exit code after Ctrl-C, as in shells: 128 + SIGINT."""
EXIT_BROKEN_PIPE = 141
"""Exit code when the process that reads the output has exited, as in shells: 128 + SIGPIPE."""


class UsageError(ValueError):
    """A request that cannot be met; the message says what was asked, what is possible and what to
    do.
    """


class SeveralMistakesError(UsageError):
    """Several mistakes that are told at once, each in a line of its own."""


class IncompatibleError(UsageError):
    """A choice of parts of a model that do not work together."""


LONGEST_VALUE = 200
"""Characters of a value that a message repeats."""
LONGEST_MESSAGE = 1400


def one_line(message: object) -> str:
    """A message for a terminal: one line, long values cut, control characters escaped."""
    text = " ".join(str(message).split())
    text = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
    for pattern in (r"'[^']+'", r'"[^"]+"', r"\S+"):
        text = re.sub(pattern, _shortened, text)
    return text if len(text) <= LONGEST_MESSAGE else f"{text[:LONGEST_MESSAGE]}…"


def _shortened(value: "re.Match[str]") -> str:
    word = value[0]
    if len(word) <= LONGEST_VALUE:
        return word
    half = LONGEST_VALUE // 4
    return f"{word[:half]}…({len(word)} characters)…{word[-half:]}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """End of a message that suggests the known word nearest to a misspelt one; empty if none is."""
    import difflib  # only once something is wrong

    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), list(by_lower), n=1)
    return f"; did you mean {by_lower[near[0]]}?" if near else ""


def either(words: Sequence[str]) -> str:
    """Join words to a list of alternatives: a, b or c."""
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def with_article(noun: str) -> str:
    """Put the indefinite article before a noun: a uniform process, an absorbing process."""
    vowel = noun[0] in "aeiou" and not noun.startswith("uni")
    return f"{'an' if vowel else 'a'} {noun}"


def out_of_memory(error: BaseException) -> str | None:
    """What asked for memory that cannot be had, and for how much, in one line; None of another
    error.
    """
    import traceback

    text = " ".join(str(error).split())
    said = re.search(
        r"out of memory|not enough memory|can't allocate|unable to allocate|cannot allocate memory|"
        r"storage size calculation overflowed|integer multiplication overflow",
        text,
        re.IGNORECASE,
    )
    if not isinstance(error, MemoryError) and not said:
        return None
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "platform_" in frame.filename] or frames[-1:]
    where = f"{os.path.basename(own[-1].filename)}, {own[-1].name}" if own else "the command"
    much = re.sub(r"^.*(?=DefaultCPUAllocator|Unable to allocate|CUDA out of memory)", "", text)
    much = re.split(r"\. (?:Including|If reserved|Of the allocated)", much)[0]
    return (
        f"there is not enough memory for what {where} asked for"
        f"{f' ({much[:300]})' if much else ''}; ask for less: a smaller batch, length or model"
    )


def reason(error: BaseException) -> str:
    """Describe an error in one line: type, message and, if raised outside the import system and the
    core, file and line.
    """
    import traceback

    text = " ".join(str(error).split())
    said = f"{type(error).__name__}: {text}" if text else type(error).__name__
    last = traceback.extract_tb(error.__traceback__)[-1]
    imported = "importlib" in last.filename or last.filename.startswith(os.path.dirname(__file__))
    return said if imported else f"{said} ({last.filename}, line {last.lineno})"
