"""The Aim repository beside the runs (`runs/.aim`): made once, and indexed.

Aim's queries and web interface read an index that Aim itself fills only while `aim up` runs. Here a
run is indexed when it closes (`tracking`) and by `platform dashboard`. Aim is imported when a
repository is opened, never before.
"""

import contextlib
import logging
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from filelock import FileLock

LOCK_SECONDS = 60.0
"""Longest wait for another process that is making the same repository."""


def is_repository(repository: Path) -> bool:
    """Whether Aim has finished making this repository; its version is what it writes last."""
    return (repository / "VERSION").is_file()


def open_repository(repository: Path) -> Any:
    """Aim's `Repo` of a directory called `.aim`, made if missing; for use by many processes."""
    aim = import_aim()
    repository.mkdir(parents=True, exist_ok=True)
    # Aim fails in all but one of several processes that make one repository at once.
    with FileLock(repository / "platform.lock", timeout=LOCK_SECONDS):
        return aim.Repo.from_path(str(repository), init=not is_repository(repository))


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
    return aim


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
