"""The cache of what is made from text once: vocabularies, packed sequences, n-gram counts.

An entry is a directory keyed by everything that determines its files. It is written beside its
final place and renamed, with the size, time and digest of each file, so that a damaged entry is
made again. Used by `data` and `ngram`.

A start compares sizes and times, which takes no time for a corpus of any size. Files of another
time, such as those of a copied cache, are read in full; with `PLATFORM_CHECK_CACHE=1` all are.
"""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from platform_core.errors import UsageError
from platform_core.record.files import WriteError, digest, whole_folder, write_json
from platform_core.record.locks import locked

CACHE_VERSION = 2
"""Part of every cache key; raise it when the computation of packing or n-grams changes."""

CHECKSUMS = "checksums.json"
CHECK = "PLATFORM_CHECK_CACHE"
"""Variable that, set to 1, makes every start read all files of the entries that it uses."""


class CacheError(UsageError):
    """The directory of the cache cannot be written."""


def cache_directory() -> Path:
    """The directory of the cache; it may be deleted at any time when nothing runs."""
    if chosen := os.environ.get("PLATFORM_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "dlm-platform"


def cached(kind: str, content: object, build: Callable[[Path], None]) -> Path:
    """The cache entry for this content: a directory of files that `build` writes once.

    Two processes that ask at once build once. An entry is written beside its final place and
    renamed; an entry whose files are seen to differ from what was written is built again.

    Args:
        kind: subdirectory of the cache.
        content: plain values that determine the files.
        build: writes the files into an empty directory.

    Raises:
        CacheError: the cache directory cannot be written.
    """
    key = hashlib.sha256(json.dumps([CACHE_VERSION, content], sort_keys=True).encode())
    entry = cache_directory() / kind / key.hexdigest()[:32]
    if _is_whole(entry):
        return entry
    try:
        with locked(entry.with_suffix(".lock")):
            if not _is_whole(entry):
                with whole_folder(entry, replace=True) as folder:
                    build(folder)
                    write_json(folder / CHECKSUMS, _facts(folder))
    except (OSError, WriteError) as error:
        raise CacheError(
            f"cannot write the cache {cache_directory()} ({error}); "
            "set PLATFORM_CACHE to a directory that can be written"
        ) from error
    return entry


def _is_whole(entry: Path) -> bool:
    in_full = os.environ.get(CHECK, "") not in ("", "0")
    try:
        facts = json.loads((entry / CHECKSUMS).read_text())
        found = _files(entry)
        return facts.keys() == found.keys() and all(
            _is_as_written(file, *facts[name], in_full=in_full) for name, file in found.items()
        )
    except (OSError, ValueError, TypeError, AttributeError):
        return False


def _is_as_written(file: Path, size: int, time: int, content: str, *, in_full: bool) -> bool:
    now = file.stat()
    if now.st_size != size:
        return False
    return (now.st_mtime_ns == time and not in_full) or digest(file) == content


def _facts(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Name of each file -> bytes, time of the last change in nanoseconds, digest."""
    stats = {name: (file, file.stat()) for name, file in _files(folder).items()}
    return {
        name: (stat.st_size, stat.st_mtime_ns, digest(file)) for name, (file, stat) in stats.items()
    }


def _files(folder: Path) -> dict[str, Path]:
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {f.relative_to(folder).as_posix(): f for f in files if f.name != CHECKSUMS}
