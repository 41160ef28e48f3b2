"""Files and folders: writing them as a whole or not at all, and digests.

    write into .NAME.partial  ->  fsync  ->  rename to NAME  ->  fsync the directory

So a reader sees the old content or the new, also after a power cut. A partial file that a killed
process has left is removed by the next process that writes the same file. Two processes that may
write the same file at once need a lock (`locks`).
"""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from platform_core.errors import UsageError, reason


class WriteError(UsageError):
    """A file or folder that cannot be written, as on a full disk.

    Args:
        path: the file or folder that was to be written.
        error: the error of the operating system.
    """

    def __init__(self, path: Path, error: OSError) -> None:
        named = error.filename is not None and Path(error.filename).name != _beside(path).name
        said = str(error) if named else error.strerror or str(error)
        self.path, self.error, self.reason = path, error, " ".join(said.split())
        super().__init__(f"cannot write {path} ({self.reason})")


class ReadError(UsageError):
    """A file of the platform's that is damaged: cut off, changed, or not of the form it had."""


def read_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
        FileNotFoundError: it is not there.
        ReadError: it is damaged; the message names it.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ReadError(f"{path} is damaged: {reason(error)[:200]}") from error
    if not isinstance(values, dict):
        raise ReadError(f"{path} is damaged: it holds no object of JSON")
    return values


def write_text(path: Path, text: str) -> None:
    """Writes a file in UTF-8, as a whole or not at all.

    Raises:
        WriteError: as `write_bytes`.
    """
    write_bytes(path, text.encode())


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes plain values as JSON, as a whole or not at all.

    Raises:
        WriteError: as `write_bytes`.
    """
    write_text(path, json_text(values) + "\n")


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file as a whole or not at all; makes its folder if that is missing.

    If the path is a link, the file that the link points to is replaced. A path that is no regular
    file, such as a pipe or /dev/null, is written to directly.

    Raises:
        WriteError: the disk is full or cannot be written; the old content is still there.
    """
    with _failures_named(path):
        if path.exists() and not path.is_file():
            path.write_bytes(content)
            return
        target = Path(os.path.realpath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = _beside(target)
        remove(beside)
        try:
            beside.write_bytes(content)
            _flush(beside)
            beside.replace(target)
        except BaseException:
            remove(beside)
            raise
        _flush(target.parent)


@contextmanager
def whole_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """An empty folder to write into, which becomes `path` after the block, whole or not at all.

    Its files get the modes that the umask gives, whichever library wrote them. If the block raises
    an error, the folder is removed.

    Args:
        path: path of the folder after the block; a link to a folder stays a link.
        replace: whether to replace what exists at `path`; if not, only an empty folder may exist.

    Raises:
        WriteError: the disk is full or cannot be written, or `path` exists and may not be replaced.
    """
    with _failures_named(path):
        target = Path(os.path.realpath(path))
        with scratch_folder(_beside(target)) as folder:
            try:
                yield folder
            except WriteError as error:
                if not error.path.is_relative_to(folder):
                    raise
                raise WriteError(path / error.path.relative_to(folder), error.error) from error
            _settle(folder)
            if replace:
                remove(target)
            folder.rename(target)
            _flush(target.parent)


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """An empty folder for the time of the block, in place of what a killed process has left."""
    remove(path)
    try:
        path.mkdir(parents=True)
        yield path
    finally:
        remove(path)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


@contextmanager
def _failures_named(path: Path) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise  # the reader closed the pipe, which is no failure
    except OSError as error:
        raise WriteError(path, error) from error


def remove(path: Path) -> None:
    """Removes a file, a link or a whole folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _settle(folder: Path) -> None:
    """Flushes a folder to the disk; gives files that libraries made private the usual modes."""
    usual = folder.stat().st_mode & 0o666
    for path in folder.rglob("*"):
        if path.is_symlink():
            continue
        mode = path.stat().st_mode
        if path.is_file() and mode & 0o666 != usual:
            path.chmod(mode & 0o111 | usual)
        _flush(path)
    _flush(folder)


def _flush(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def json_text(values: Mapping[str, Any]) -> str:
    """Plain values as JSON, with null for NaN and infinity."""
    return json.dumps(_finite(values), indent=1, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def digest_of(values: object) -> str:
    """SHA-256 of plain values, whatever the order of their keys, in hexadecimal."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
