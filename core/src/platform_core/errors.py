"""Errors that are the user's to mend, the words that their messages share, and exit codes.

Each error is one line on standard error with exit code 2, never a traceback.
"""

import os
from collections.abc import Iterable, Sequence

EXIT_MISTAKE = 2
"""Exit code after a mistake of the user's, or of the machine's state: one line says which."""
EXIT_INTERRUPTED = 75
"""Exit code after SIGTERM or SIGUSR1, once all is saved and can be resumed (EX_TEMPFAIL)."""
EXIT_CTRL_C = 130
"""Exit code after Ctrl-C, as shells have it: 128 + SIGINT."""
EXIT_BROKEN_PIPE = 141
"""Exit code when the reader of what is printed has gone, as shells have it: 128 + SIGPIPE."""


class UsageError(ValueError):
    """A request that cannot be met: what was asked, what is possible, what to do."""


class IncompatibleError(UsageError):
    """Parts that do not go together."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The known word nearest to a misspelt one, as the end of a message; empty if none is near."""
    import difflib  # only once something is wrong

    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def either(words: Sequence[str]) -> str:
    """A, b or c."""
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def with_article(noun: str) -> str:
    """A uniform process, an absorbing process."""
    vowel = noun[0] in "aeiou" and not noun.startswith("uni")
    return f"{'an' if vowel else 'a'} {noun}"


def reason(error: BaseException) -> str:
    """What was raised and, unless by the import or the loader itself, where; in one line."""
    import traceback

    text = " ".join(str(error).split())
    said = f"{type(error).__name__}: {text}" if text else type(error).__name__
    last = traceback.extract_tb(error.__traceback__)[-1]
    imported = "importlib" in last.filename or last.filename.startswith(os.path.dirname(__file__))
    return said if imported else f"{said} ({last.filename}, line {last.lineno})"
