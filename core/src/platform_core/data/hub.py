"""The Hugging Face hub: whether it can be reached, and how to silence its libraries.

This module imports the libraries' loggers, so it is imported only where these libraries are used.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from urllib.parse import urlsplit
from urllib.request import getproxies

from huggingface_hub import constants
from huggingface_hub.utils import logging as hub_logging
from transformers.utils import logging


def reachable() -> bool:
    """Whether the hub's name can be looked up.

    Without this check, the hub's libraries would try for a minute before they fail. Offline, they
    still find their cached files if they are told to look nowhere else (`local_files_only`).
    """
    if constants.HF_HUB_OFFLINE or os.environ.get("HF_DATASETS_OFFLINE") == "1":
        return False
    if getproxies():
        return True  # The proxy looks up names in our place.
    address = urlsplit(constants.ENDPOINT)
    try:
        socket.getaddrinfo(address.hostname, address.port or 443)
    except OSError:
        return False
    return True


@contextmanager
def offline() -> Iterator[None]:
    """Let the hub's libraries open no connection, those too that take no `local_files_only`."""
    import datasets

    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before


def offline_if_unreachable() -> AbstractContextManager[None]:
    """If the hub cannot be reached, let libraries that take no `local_files_only` fail at once."""
    return nullcontext() if reachable() else offline()


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the libraries' warnings and progress bars; the caller reports what matters."""
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
