"""The processes of one launch, such as torchrun's: who speaks for them, and how they end together.

    every process: ready -> training -> a mistake -> speaks -> part

A launcher kills all processes soon after one has ended, and a process that waits for one that is
gone hangs, or raises an error of the network. So they meet before the first of them needs another,
and whoever leaves with a mistake tells the others first. They talk over the store of the launch
(`torch.distributed.TCPStore`), which needs no process group. One process alone does none of this.
"""

import os
import re
import sys
import time
from contextlib import suppress
from datetime import timedelta
from hashlib import sha256
from itertools import count
from typing import TYPE_CHECKING

from platform_core.errors import UsageError

if TYPE_CHECKING:
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]

PATIENCE = 10.0
"""Seconds that a process which leaves waits for the others to leave as well."""

LOOK_SECONDS = 0.02
"""Seconds between two looks at the store."""

LAST_WORDS = 2.0
"""Seconds within which a process that is gone should have said why, if it could."""

_LOST = re.compile(
    r"connection (was likely )?(closed|reset|refused)|broken pipe|timed out|"
    r"ncclRemoteError|remote process exited|failed to (recv|send)",
    re.IGNORECASE,
)
_calls = count()
_found: "list[PrefixStore]" = []
_groups: list[object] = []
"""Closed process groups; see `keep_group`."""


class LeftError(UsageError):
    """Another process of the launch has left; the message is the line that it printed."""


def number() -> int:
    """How many processes the launcher started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process writes the record and speaks for all."""
    return os.environ.get("RANK", "0") == "0"


def ready() -> None:
    """Waits until all processes have come to this call; signals end the waiting as usual.

    Raises:
        LeftError: a process has left with a mistake instead.
    """
    store = _store(PATIENCE) if number() > 1 else None
    if store is None:
        return
    here = f"ready/{next(_calls)}"
    store.add(here, 1)
    while store.add(here, 0) < number():
        _require_all(store)
        time.sleep(LOOK_SECONDS)


def require_all() -> None:
    """Raises LeftError if a process has left with a mistake; its launcher then ends the others."""
    if number() > 1 and (store := _store(LAST_WORDS)) is not None:
        with suppress(RuntimeError):  # the store may be gone with its process
            _require_all(store)


def _require_all(store: "PrefixStore") -> None:
    if store.add("parted", 0):
        raise LeftError(_line(store) or "another process has left")


def speaks(line: str) -> bool:
    """Whether this process is the one to print a line that several processes may want to print."""
    if number() == 1:
        return True
    with suppress(RuntimeError):
        if (store := _store(PATIENCE)) is not None:
            store.set("line", line)
            return store.add(f"said/{sha256(line.encode()).hexdigest()}", 1) == 1
    return True


def part(patience: float = PATIENCE) -> None:
    """Tells the other processes that this one leaves, and waits until they leave as well.

    Args:
        patience: seconds after which it waits no longer, for a process that is gone, or computes.
    """
    if number() == 1:
        return
    with suppress(RuntimeError):  # the process with the store may be the first to go
        store = _store(PATIENCE)
        if store is None:
            return
        store.add("parted", 1)
        _leave_group()
        end = time.monotonic() + patience
        _all_at(store, "parted", end)
        store.add("gone", 1)
        if _has_store():  # which goes with this process
            _all_at(store, "gone", min(end, time.monotonic() + LAST_WORDS))


def lost(error: BaseException, command: str) -> str | None:
    """The line to print of an error that comes of another process being gone; None of others.

    It is what that process said, or that it said nothing.

    Args:
        error: of a collective operation.
        command: as it stands before each mistake.
    """
    if number() == 1 or not _LOST.search(str(error)):
        return None
    with suppress(RuntimeError):
        store = _store(LAST_WORDS)
        end = time.monotonic() + LAST_WORDS
        while store is not None and time.monotonic() < end:
            if line := _line(store):
                return line
            time.sleep(LOOK_SECONDS)
    return (
        f"{command}: error: another process of this launch has ended without a word (was it "
        "killed, or out of memory?); a training goes on from its last checkpoint with --resume"
    )


def _line(store: "PrefixStore") -> str:
    """The last line that a process printed, or wanted to print."""
    return store.get("line").decode() if store.check(["line"]) else ""


def _store(patience: float) -> "PrefixStore | None":
    """The store of the launch; None if there is none, or none within some seconds."""
    if _found or "MASTER_ADDR" not in os.environ or "MASTER_PORT" not in os.environ:
        return _found[0] if _found else None
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

    try:
        store = TCPStore(
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            number(),
            is_master=_has_store(),
            timeout=timedelta(seconds=patience),
            wait_for_workers=False,
            multi_tenant=True,
        )
    except RuntimeError:
        return None
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    _found.append(PrefixStore(f"platform/{attempt}", store))
    return _found[0]


def _has_store() -> bool:
    """Whether the store is in this process, and not in that of the launcher."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" and is_main()


def _all_at(store: "PrefixStore", key: str, end: float) -> None:
    """Waits until all processes have counted up a key, or until a time."""
    while store.add(key, 0) < number() and time.monotonic() < end:
        time.sleep(LOOK_SECONDS)


def _leave_group() -> None:
    """Closes the connections to the other processes, which notice that where they wait for one."""
    if "torch.distributed" not in sys.modules:
        return
    from torch import distributed

    if distributed.is_initialized() and distributed.get_backend() == "gloo":
        distributed.destroy_process_group()


def keep_group() -> None:
    """Holds the process group until `let_go`, although it is left now.

    Not after a mistake: others notice that a process is gone when its connections end.
    A group of gloo that ends waits for its threads, which may need Python's lock for the tensors
    that they hold. Torch releases the lock where the last holder is an object of Python, and keeps
    it, for ever, where that is DistributedDataParallel; so that must not be the last one.
    """
    from torch import distributed

    if distributed.is_initialized():
        _groups.append(distributed.group.WORLD)


def let_go() -> None:
    """Lets go of closed process groups, once nothing uses them any more."""
    _groups.clear()
