"""Manners of the transformers library: what it raises and says when it fails."""

FAILURES = (
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    IndexError,
    RuntimeError,
    ImportError,
)
"""What its networks raise for a configuration that they cannot work with."""


def said(error: BaseException) -> str:
    """The beginning of a message of many lines."""
    lines = [line.strip() for line in str(error).strip().splitlines()]
    first = " ".join(lines[:2]) if lines and lines[0].endswith(":") else "".join(lines[:1])
    return first.rstrip(".") or type(error).__name__
