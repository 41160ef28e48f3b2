"""The Aim repository beside the runs (`runs/.aim`): made once, and indexed.

Aim's queries and web interface read an index that Aim itself fills only while `aim up` runs. Here a
run is indexed when it closes (`tracking`) and by `platform dashboard`. Aim is imported when a
repository is opened, never before.

Who uses a repository holds locks that end with the process, however it ends:

    .aim/platform.users         shared by runs and dashboards; `--rebuild` has it alone
    .aim/platform.living/HASH   of the one process that writes to a run
"""

import contextlib
import logging
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from platform_core.record.locks import is_taken, locked

LOCK_SECONDS = 60.0
"""Longest wait for another process that is making the same repository."""

WRITER_SECONDS = 20.0
"""Longest wait for a run that another process writes to."""

BOOKMARKS = "aim_db"
"""Aim's database of bookmarks in a repository; the runs' is another."""

REPLACE_SECONDS = 90.0
"""Longest wait for a repository that is being rebuilt; a run gives up Aim after a little more."""


def is_repository(repository: Path) -> bool:
    """Whether Aim has finished making this repository; its version is what it writes last."""
    return (repository / "VERSION").is_file()


def open_repository(repository: Path) -> Any:
    """Aim's `Repo` of a directory called `.aim`, made if missing; for use by many processes."""
    aim = import_aim()
    repository.mkdir(parents=True, exist_ok=True)
    # Aim fails in all but one of several processes that make one repository at once.
    with locked(repository / "platform.lock", patience=LOCK_SECONDS):
        return aim.Repo.from_path(str(repository), init=not is_repository(repository))


@contextmanager
def in_use(repository: Path, *, alone: bool = False) -> Iterator[None]:
    """Keeps a repository from being replaced meanwhile; alone, for replacing it.

    Raises:
        BlockingIOError: it is being replaced, for longer than anyone should wait; or, alone, others
            use it.
    """
    patience = 0.0 if alone else REPLACE_SECONDS
    with locked(repository / "platform.users", shared=not alone, patience=patience):
        yield


@contextmanager
def alive(repository: Path, run_hash: str) -> Iterator[None]:
    """Says that this process writes to a run.

    Raises:
        BlockingIOError: another one does, for longer than a dashboard that completes a killed run.
    """
    path = living(repository, run_hash)
    with locked(path, patience=WRITER_SECONDS):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def living(repository: Path, run_hash: str) -> Path:
    """The file that the process which writes to a run has locked."""
    return repository / "platform.living" / run_hash


def is_alive(repository: Path, run_hash: str) -> bool:
    """Whether a process writes to a run; of runs not of ours, whether Aim's lock may be in use."""
    try:
        return is_taken(living(repository, run_hash))
    except FileNotFoundError:
        return _has_foreign_lock(repository, run_hash)


def _has_foreign_lock(repository: Path, run_hash: str) -> bool:
    from aim.sdk.lock_manager import LockManager

    locks: Any = LockManager(repository)
    path = soft_lock(repository, run_hash)
    return path.exists() and not locks.is_stalled_lock(path)


def soft_lock(repository: Path, run_hash: str) -> Path:
    """Aim's own lock of a run, which a killed one leaves behind."""
    return repository / "locks" / f"{run_hash}.softlock"


def end_dead_runs(repo: Any) -> list[str]:
    """Marks runs as ended whose process is gone, and removes what is left of their locks.

    Aim's own rule goes by heartbeats, and opens living runs to find out.

    Returns:
        Their hashes.
    """
    from aim.sdk.run_status_manager import RunStatusManager

    repository, statuses = Path(repo.path), RunStatusManager(repo)
    marks = sorted(path.name for path in (repository / "meta" / "progress").iterdir())
    dead = [run_hash for run_hash in marks if not is_alive(repository, run_hash)]
    for run_hash in dead:
        mark: Any = statuses._mark_run_as_terminated
        mark(run_hash)
        soft_lock(repository, run_hash).unlink(missing_ok=True)
        living(repository, run_hash).unlink(missing_ok=True)
    return dead


def prepare_run(repo: Any, run_hash: str, *, created: float) -> None:
    """Makes Aim, which only begins runs under names of its own, go on with a run of this name."""
    (Path(repo.path) / "meta" / "chunks" / run_hash).mkdir(parents=True, exist_ok=True)
    repo._all_run_hashes.cache_clear()
    if not repo.structured_db.find_run(run_hash):
        repo.request_props(run_hash, False, datetime.fromtimestamp(created, UTC))


def hashes(repository: Path) -> set[str]:
    """The names of all runs of a repository; it need not be whole."""
    chunks = repository / "meta" / "chunks"
    return {path.name for path in chunks.iterdir()} if chunks.is_dir() else set()


def date_end(repo: Any, run_hash: str, ended: float) -> None:
    """Dates the end of a closed run, in place of the moment at which Aim closed it."""
    tree = repo.request_tree("meta", run_hash, read_only=False)
    tree.subtree(("meta", "chunks", run_hash))["end_time"] = ended


def import_aim() -> Any:
    """Aim, without its warnings at import (errors under `python -W error`) and its work at exit."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import aim
        from aim.ext.cleanup import AutoClean
    logging.getLogger("aim").setLevel(logging.ERROR)
    # Aim's clean-up at exit waits for ever where closing a file fails, and from Python 3.12 on it
    # cannot start its thread. Runs are closed explicitly instead.
    AutoClean._registered_with_atexit = True
    kind: Any = AutoClean
    if kind.__init__ is not _clean_in_its_thread:
        kind.__init__ = _clean_in_its_thread
        threading.Thread(target=_close_all, daemon=True).start()
    return aim


_LEFT: SimpleQueue[Callable[[], None]] = SimpleQueue()
"""Closes what the garbage collection found in another thread than the one that opened it."""


def _clean_in_its_thread(resources: Any, instance: Any) -> None:
    """Aim's `AutoClean.__init__`, but the collection of garbage never waits for a full disk.

    Aim closes what nothing refers to any more, which writes, joins threads and on a full disk never
    returns. Python collects garbage in any thread, so that what a failed tracker left would stop
    the training. What is found in another thread than its own is left to one that may wait.
    """
    opened = threading.get_ident()

    def close() -> None:
        if threading.get_ident() == opened:
            resources._close()
        else:
            _LEFT.put(resources._close)

    resources.finalizer = weakref.finalize(instance, close)
    resources.finalizer.atexit = False


def _close_all() -> None:
    while True:
        close = _LEFT.get()
        # It is nobody's any more, and nobody is there to be told.
        with contextlib.suppress(Exception):
            close()


def index(repo: Any, run_hashes: Iterable[str], *, patience: float) -> bool:
    """Copies names, hyper-parameters and last values of runs to where queries look for them.

    Runs that have not changed since cost almost nothing. Aim's own index manager is not used: it
    starts a thread in every process, and dies for good of meeting another one at the index.

    Args:
        repo: from `open_repository`.
        run_hashes: the runs.
        patience: seconds to wait for another process that is indexing.

    Returns:
        Whether the index was free in time.
    """
    target = _open_index(repo, patience)
    if target is None:
        return False
    for run_hash in run_hashes:
        _index_run(repo, run_hash, target)
    return True


def _open_index(repo: Any, patience: float) -> Any | None:
    deadline = time.monotonic() + patience
    while True:
        try:
            return repo._get_index_tree("meta", 0).view(())
        except _rocks_errors():
            if time.monotonic() > deadline:
                return None
            time.sleep(0.05)


def _index_run(repo: Any, run_hash: str, target: Any) -> None:
    """Brings one run's part of the index up to date, unless its files are damaged or in motion."""
    folder = Path(repo.path) / "meta" / "chunks" / run_hash
    with contextlib.suppress(FileNotFoundError, *_rocks_errors()):
        fingerprint = _fingerprint(folder)
        if target.get(("index_cache", run_hash)) != fingerprint:
            source = repo.request_tree(
                "meta", run_hash, read_only=True, skip_read_optimization=True
            )
            source.subtree("meta").subtree("chunks").subtree(run_hash).finalize(index=target)
            target["index_cache", run_hash] = fingerprint


def _fingerprint(folder: Path) -> str:
    """Sizes and times of a run's files, except the logs that reading it also writes."""
    files = sorted(file for file in folder.iterdir() if not file.name.startswith("LOG"))
    stats = [(file.name, file.stat()) for file in files]
    return " ".join(f"{name}:{stat.st_size}:{stat.st_mtime_ns}" for name, stat in stats)


def _rocks_errors() -> tuple[type[Exception], ...]:
    import aimrocks.errors

    return aimrocks.errors.RocksIOError, aimrocks.errors.Corruption
