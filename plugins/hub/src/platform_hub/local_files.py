"""Local files of a corpus: what they hold, and where something in them cannot be read."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

DIGESTED_BYTES = 2**28
"""Files of at most this size together are known by their content, and larger ones by facts of the
file system that copying cannot set."""


def identity(files: Mapping[str, Sequence[Path]]) -> str:
    """A digest that changes with the content of the files of each split, whatever their times say.

    Files of `DIGESTED_BYTES` together count by their content, so that a copy is the same text.
    Larger ones count by path, size, time of change in nanoseconds, inode and the time of the
    inode's change, which no program can set.
    """
    found = {split: [file.resolve() for file in of] for split, of in files.items()}
    size = sum(file.stat().st_size for of in found.values() for file in of)
    facts = _content if size <= DIGESTED_BYTES else _status
    known = {split: [facts(file) for file in of] for split, of in found.items()}
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()


def _content(file: Path) -> list[object]:
    with file.open("rb") as stream:
        return [file.suffix, hashlib.file_digest(stream, "sha256").hexdigest()]


def _status(file: Path) -> list[object]:
    status = file.stat()
    return [
        str(file),
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_ino,
    ]


def bad_place(files: Sequence[Path], format: str, column: str) -> str:
    """The first file and row that cannot be read, and why; empty where none is found."""
    look = {"json": _in_lines, "parquet": _in_column}.get(format)
    for file in files if look else ():
        assert look is not None
        for place, reason in look(file, column):
            return f"{file}, {place}: {reason}"
    return ""


def _in_lines(file: Path, column: str) -> Iterator[tuple[str, str]]:
    """The first line that is no JSON in UTF-8; a file that is one list is not looked into."""
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    text = line.decode()
                except UnicodeDecodeError as error:
                    yield f"line {number}", f"{not_utf8(line, error)}; write the file in UTF-8"
                    return
                if number == 1 and text.lstrip().startswith("["):
                    return
                try:
                    json.loads(text) if text.strip() else None
                except (ValueError, RecursionError) as error:
                    yield f"line {number}", f"no JSON ({error})"
                    return
    except OSError:
        return


def _in_column(file: Path, column: str) -> Iterator[tuple[str, str]]:
    """The first row of a Parquet file, counted from 0, whose text is not in UTF-8."""
    number = 0
    try:
        with pa.parquet.ParquetFile(file) as table:
            for batch in table.iter_batches(columns=[column]):
                for value in batch.column(0).cast(pa.binary()).to_pylist():
                    try:
                        (value or b"").decode()
                    except UnicodeDecodeError as error:
                        yield f"row {number}", f"{not_utf8(value, error)}; write it in UTF-8"
                        return
                    number += 1
    except (OSError, ValueError, pa.ArrowException) as error:
        yield f"row {number}", " ".join(str(error).split())


def not_utf8(text: bytes, error: UnicodeDecodeError) -> str:
    """The byte that is no UTF-8, and where in its row it stands."""
    return f"byte 0x{text[error.start]:02x} at {error.start} is not UTF-8"
