"""Errors of the transformers library: exception types, and the beginning of their messages."""

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

FAILURES = (
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    IndexError,
    RuntimeError,
    ImportError,
    KeyError,
    ArithmeticError,
    MemoryError,
    SafetensorError,
    StrictDataclassError,
)
"""Exceptions that transformers raises for a configuration that a network does not support."""


def said(error: BaseException) -> str:
    """The first line of a message, or the first two if the first ends in a colon."""
    lines = [line.strip() for line in str(error).strip().splitlines()]
    first = " ".join(lines[:2]) if lines and lines[0].endswith(":") else "".join(lines[:1])
    return first.rstrip(".") or type(error).__name__
