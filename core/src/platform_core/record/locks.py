"""File locks between processes, which are free once the last process that holds them has ended.

A lock belongs to the open file (flock). Processes that inherit the file's descriptor hold the lock
too, and the operating system frees it when the last of them ends, for whatever reason. So a lock is
never stale, and its file may stay. Two threads exclude each other like two processes.
"""

import fcntl
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from platform_core.errors import UsageError
from platform_core.record.files import WriteError


class BusyError(UsageError):
    """What another process is writing."""


LOOK_SECONDS = 0.05
"""Seconds between two attempts to take a lock that another process holds."""


def take(path: Path, *, shared: bool = False, patience: float = 0.0) -> IO[str]:
    """Takes a lock on a file, made if missing; closing the returned stream frees the lock.

    Args:
        path: path of the file; its folder is made too.
        shared: whether others may hold the lock at the same time, if they share it as well.
        patience: seconds to wait while others hold the lock.

    Raises:
        BlockingIOError: others still hold the lock after that time.
        OSError: the file cannot be made.
    """
    deadline = time.monotonic() + patience
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("a", encoding="utf-8")
        try:
            _lock(stream, shared=shared)
            # While this one waited, the file may have been removed, or moved and replaced.
            if path.exists() and os.path.samestat(os.fstat(stream.fileno()), path.stat()):
                return stream
        except BlockingIOError:
            if time.monotonic() >= deadline:
                stream.close()
                raise
        except BaseException:
            stream.close()
            raise
        stream.close()
        time.sleep(LOOK_SECONDS)


@contextmanager
def locked(path: Path, *, shared: bool = False, patience: float = math.inf) -> Iterator[None]:
    """Holds a lock during the block; the arguments and errors are those of `take`."""
    with take(path, shared=shared, patience=patience):
        yield


@contextmanager
def claimed(path: Path, *, busy: str) -> Iterator[None]:
    """Holds a lock for the time of the block, and leaves no file and no empty folder of it behind.

    Args:
        path: of the lock's file.
        busy: what to say where somebody has it.

    Raises:
        BusyError: somebody has it.
        WriteError: its file cannot be made.
    """
    made = [folder for folder in path.parents if not folder.exists()]
    try:
        stream = take(path)
    except BlockingIOError:
        raise BusyError(busy) from None
    except OSError as error:
        raise WriteError(path, error) from error
    with stream:
        try:
            yield
        finally:
            with suppress(OSError):
                # By then it may be in another folder that has taken the place of this one.
                if os.path.samestat(os.fstat(stream.fileno()), path.stat()):
                    path.unlink()
            with suppress(OSError):
                for folder in made:
                    folder.rmdir()


def is_taken(path: Path) -> bool:
    """Whether any process holds a lock, alone or shared; makes no file.

    Raises:
        FileNotFoundError: the file does not exist.
    """
    with path.open("r+", encoding="utf-8") as stream:
        try:
            _lock(stream, shared=False)
        except BlockingIOError:
            return True
    return False


def _lock(stream: IO[str], *, shared: bool) -> None:
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    fcntl.flock(stream, kind | fcntl.LOCK_NB)
