"""The cache of what is made from text once: vocabularies, packed sequences, n-gram counts.

An entry is a directory keyed by everything that determines its files. It is written beside its
final place and renamed, with the digest of each file, so that a damaged entry is made again. Used
by `data` and `ngram`.
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


def cache_directory() -> Path:
    """The directory of the cache; it may be deleted at any time when nothing runs."""
    if chosen := os.environ.get("PLATFORM_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "dlm-platform"


def cached(kind: str, content: object, build: Callable[[Path], None]) -> Path:
    """The cache entry for this content: a directory of files that `build` writes once.

    Two processes that ask at once build once. An entry is written beside its final place and
    renamed; an entry whose files differ from what was written is built again.

    Args:
        kind: subdirectory of the cache.
        content: plain values that determine the files.
        build: writes the files into an empty directory.

    Raises:
        UsageError: the cache directory cannot be written.
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
                    write_json(folder / CHECKSUMS, _checksums(folder))
    except (OSError, WriteError) as error:
        raise UsageError(
            f"cannot write the cache {cache_directory()} ({error}); "
            "set PLATFORM_CACHE to a directory that can be written"
        ) from error
    return entry


def _is_whole(entry: Path) -> bool:
    try:
        return bool(json.loads((entry / CHECKSUMS).read_text()) == _checksums(entry))
    except (OSError, ValueError):
        return False


def _checksums(folder: Path) -> dict[str, str]:
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {
        file.relative_to(folder).as_posix(): digest(file)
        for file in files
        if file.name != CHECKSUMS
    }
