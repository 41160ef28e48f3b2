"""Output on terminals and in files whose encoding lacks some characters, such as ASCII."""

import codecs
import io
import sys

PLAIN = {
    "–": "-",
    "—": "-",
    "−": "-",
    "±": "+-",
    "…": "...",
    "’": "'",
    "‘": "'",
    "“": '"',
    "”": '"',
    "▒": "#",
    "━": "=",
    "↵": "|",
    **dict(zip("▁▂▃▄▅▆▇█", "_.-:=+*#", strict=True)),
}
"""What stands for characters of the platform's own words; others become escapes such as \\xe9."""


def without_failing() -> None:
    """Makes standard output and error replace characters that they cannot show."""
    codecs.register_error("platform-plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="platform-plain")


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    words = error.object[error.start : error.end]
    shown = (PLAIN.get(c, c.encode("ascii", "backslashreplace").decode()) for c in words)
    return "".join(shown), error.end
