"""Manners of the transformers library: what it prints, and what it says when it fails."""

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.utils import logging as hub_logging
from transformers.utils import logging

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


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings and no progress bars: what matters of them is said by `network`."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    hub_level = hub_logging.get_verbosity()
    logging.set_verbosity_error()
    hub_logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        hub_logging.set_verbosity(hub_level)
        if bars:
            logging.enable_progress_bar()


def said(error: BaseException) -> str:
    """The beginning of a message of many lines."""
    lines = [line.strip() for line in str(error).strip().splitlines()]
    first = " ".join(lines[:2]) if lines and lines[0].endswith(":") else "".join(lines[:1])
    return first.rstrip(".") or type(error).__name__
