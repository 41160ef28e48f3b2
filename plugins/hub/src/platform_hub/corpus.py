"""Corpora read through the library datasets: of the hub, or JSON Lines, Parquet and saved folders.

A split that the corpus lacks is held out of its training text, as for many text files: of every 20
documents the 10th is validation and the 20th is test. The only split of a corpus is its training
text, unless it is named validation or test.

Rows are memory-mapped, or streamed (`Cursor`): a stream keeps no rows and can continue from a
position. No code of a corpus is run, because datasets only reads files. Only the column of the text
is read and decoded. A local corpus is known by its files (`local_files`), never by its names.
"""

import hashlib
import json
import logging
import lzma
import re
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, final

import datasets
import pyarrow as pa
from datasets.exceptions import DatasetsError

from platform_core.composition.options import SPLITS, DataOptions
from platform_core.data.corpus import Cursor, StreamableCorpus
from platform_core.errors import UsageError
from platform_core.record.progress import working
from platform_hub.catalogue import Entry
from platform_hub.detokenizers import DETOKENIZERS
from platform_hub.local_files import bad_place, identity

# The library would otherwise tell the hub of every JSON or Parquet file that it opens.
datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False

PERIOD = 20
HELD_OUT: Mapping[str, int] = {"validation": 9, "test": 19}

ALSO_CALLED: Mapping[str, Sequence[str]] = {
    "train": ("training",),
    "validation": ("valid", "dev", "val"),
    "test": ("testing", "eval", "evaluation"),
}
"""Other names of splits, which datasets understands in names of files; the first found counts."""

FAILURES = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    RuntimeError,
    EOFError,
    ImportError,
    NotImplementedError,
    OverflowError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    pa.ArrowException,
    DatasetsError,
)
"""Errors that the libraries raise for rows that they cannot read."""

SAVED = ("dataset_dict.json", "state.json")
"""Files of which every folder that save_to_disk wrote has one."""

SAVED_HELP = "--data.path is a folder that save_to_disk of datasets wrote"
LOCAL_HELP = "--data.path is a file, a folder or a glob of them"
HUB_HELP = (
    "connect to the network, or name a folder that holds it (Parquet, JSON Lines or saved) with "
    "--data.path"
)


class Source(ABC):
    """A source of rows: splits by name, and slices of them in the notation of datasets.

    `identity` changes whenever the rows may have changed. `format` is what the files are, and
    `files` are the local ones of each split.
    """

    splits: Sequence[str]
    identity: str
    format: str
    files: Mapping[str, Sequence[Path]]

    @abstractmethod
    def rows(self, sliced: str, column: str) -> Any:
        """A memory-mapped dataset of a slice, such as train or train[:-100].

        It has only the column, or all columns where there is no such one.
        """

    @abstractmethod
    def stream(self, sliced: str, column: str) -> Any:
        """The same slice as an iterable dataset, which reads rows as they are needed."""


@final
class Loaded(Source):
    """The dataset that `load_dataset` finds under some arguments."""

    def __init__(self, **arguments: Any) -> None:
        self._arguments = arguments
        builder = datasets.load_dataset_builder(**arguments)
        self.format = builder.name
        self.splits = [str(name) for name in builder.config.data_files or builder.info.splits or ()]
        found = builder.config.data_files or {}
        local = {str(name): [Path(f) for f in files] for name, files in found.items()}
        self.files = local if all(f.is_file() for of in local.values() for f in of) else {}
        if self.files:
            self.identity = f"{self.format} {identity(self.files)}"
            # The library's cache goes by names and times of files, which may stay as they were.
            place = Path(datasets.config.HF_DATASETS_CACHE) / self.identity.replace(" ", "-")[:40]
            self._arguments["cache_dir"] = str(place)
        else:
            self.identity = f"{builder.hash} {builder.config_id} {builder.config.version}"
        counted = builder.info.splits or {}
        self._counts = {str(name): split.num_examples for name, split in counted.items()}

    def rows(self, sliced: str, column: str) -> Any:
        """A memory-mapped dataset of a slice, first read into the library's cache."""
        return _only(datasets.load_dataset(**self._arguments, split=sliced), column)

    def stream(self, sliced: str, column: str) -> Any:
        """An iterable dataset of a slice; a slice counted from the end needs the number of rows.

        Raises:
            UsageError: the number of rows is needed but not known.
        """
        name, start, stop = self._bounds(sliced)
        rows = datasets.load_dataset(**self._arguments, split=name, streaming=True)
        if self.format == "parquet" and column in (rows.column_names or ()):
            # Selecting from the stream instead would change what `state_dict` looks like.
            rows = datasets.load_dataset(
                **self._arguments, split=name, streaming=True, columns=[column]
            )
        rows = rows.skip(start) if start else rows
        return rows if stop is None else rows.take(stop - start)

    def _bounds(self, sliced: str) -> tuple[str, int, int | None]:
        """Name of the split, first row, and the row after the last one, or None for the end."""
        plain = re.fullmatch(r"(\w+)(?:\[(\d*):(\d*)\])?", sliced)
        if plain:
            name, start, stop = plain.groups()
            return name, int(start or 0), int(stop) if stop else None
        if sliced.partition("[")[0] not in self._counts:
            raise UsageError(
                f"{sliced} cannot be streamed: the number of rows is not known; --data.path reads "
                "a local copy, or leave out --data.streaming"
            )
        return _absolute(sliced, self._counts)


@final
class Saved(Source):
    """A folder that save_to_disk wrote: one dataset, taken as training text, or several."""

    def __init__(self, path: str) -> None:
        loaded = datasets.load_from_disk(path)
        whole = isinstance(loaded, datasets.Dataset)
        self._rows = {"train": loaded} if whole else {str(n): rows for n, rows in loaded.items()}
        self.splits, self.format = list(self._rows), "saved"
        self.files = {
            name: sorted({Path(file["filename"]) for file in rows.cache_files})
            for name, rows in self._rows.items()
        }
        self.identity = f"saved {identity(self.files)}"

    def rows(self, sliced: str, column: str) -> Any:
        """A dataset of a slice, read from the folder itself."""
        name, start, stop = _absolute(
            sliced, {name: len(rows) for name, rows in self._rows.items()}
        )
        return _only(self._rows[name], column).select(range(start, stop))

    def stream(self, sliced: str, column: str) -> Any:
        """The rows of a slice, one after another."""
        return self.rows(sliced, column).to_iterable_dataset()


def _only(rows: Any, column: str) -> Any:
    """The rows without other columns, which might be audio or images that nobody can decode."""
    return rows.select_columns([column]) if column in rows.column_names else rows


def _absolute(sliced: str, counts: Mapping[str, int]) -> tuple[str, int, int]:
    whole = datasets.ReadInstruction.from_spec(sliced).to_absolute(counts)[0]
    name = whole.splitname
    return name, whole.from_ or 0, counts[name] if whole.to is None else whole.to


class Part(NamedTuple):
    """The documents of a split: a slice, and the rows taken of every `PERIOD` rows in it."""

    sliced: str
    residues: frozenset[int] = frozenset(range(PERIOD))


@final
class LibraryCorpus(StreamableCorpus):
    """Documents of one text column.

    Args:
        entry: description of the corpus.
        open_source: function that opens the source of the rows.
        help: advice for when the corpus cannot be read.

    Raises:
        UsageError: the corpus cannot be found or reached, or has none of the splits that it needs.
    """

    def __init__(self, entry: Entry, open_source: Any, help: str) -> None:
        self._entry, self._help = entry, help
        self.packing, self.marks = entry.packing, entry.marks
        with self._reading():
            self._source: Source = open_source()
        self._parts = parts(entry, self._source.splits)
        self.splits = tuple(self._parts)

    def documents(self, split: str) -> Iterator[str]:
        """The texts of one split, detokenized."""
        part, number = self._part(split), 0
        with self._reading(part):
            rows = iter(self._source.rows(part.sliced, self._entry.column))
        while (row := self.next_row(rows, part, number)) is not None:
            if number % PERIOD in part.residues:
                yield self.text(row, number)
            number += 1

    def advice(self, split: str) -> str:
        """For text that is held out: which documents it is, and how to have more of it."""
        if split not in HELD_OUT or len(self._part(split).residues) > 1:
            return super().advice(split)
        return (
            f"its {split} text is document {HELD_OUT[split] + 1} of every {PERIOD}, for which it "
            f"has too few or too short ones; give more text, --data.path of a folder with files "
            f"named train and {split}, or --evaluate.split train"
        )

    def fingerprint(self) -> str:
        """Digest of the files or their hub revision, and of how they are read."""
        how: list[object] = [self._source.identity, self._entry.column, self._entry.detokenizer]
        how += [(name, part.sliced, sorted(part.residues)) for name, part in self._parts.items()]
        return hashlib.sha256(json.dumps(how).encode()).hexdigest()

    def cursor(self, split: str) -> Cursor:
        """The documents of one split as a stream, from the beginning."""
        return RowCursor(self, self._part(split))

    def open_stream(self, part: Part) -> Any:
        """The rows of a part as an iterable dataset."""
        with self._reading(part):
            return self._source.stream(part.sliced, self._entry.column)

    def next_row(
        self, rows: Iterator[Mapping[str, Any]], part: Part, number: int
    ) -> Mapping[str, Any] | None:
        """The next row of a part, which has this number; None at its end."""
        try:
            return next(rows, None)
        except FAILURES as error:
            raise self._unreadable(error, part, f"row {number}: ") from error

    def text(self, row: Mapping[str, Any], number: int) -> str:
        """The document in a row.

        Raises:
            UsageError: the row has no text in that column.
        """
        column, detokenizer = self._entry.column, self._entry.detokenizer
        if column not in row:
            raise UsageError(
                f"corpus {self._entry.name} has no column {column}; --data.column is one of "
                f"{', '.join(row)}"
            )
        text = row[column]
        if not isinstance(text, str):
            raise UsageError(
                f"corpus {self._entry.name}: row {number} has no text in column {column}, but "
                f"{text!r:.40}; choose another --data.column, or correct the row"
            )
        return DETOKENIZERS[detokenizer](text) if detokenizer else text

    def _part(self, split: str) -> Part:
        if split not in self._parts:
            raise UsageError(
                f"corpus {self._entry.name} has no {split} text, only {', '.join(self._parts)}"
            )
        return self._parts[split]

    @contextmanager
    def _reading(self, part: Part | None = None) -> Iterator[None]:
        """Turn errors into one-line messages, without the hub client's reports of retries."""
        datasets.disable_progress_bars()
        silenced = [logging.getLogger(name) for name in ("huggingface_hub", "datasets")]
        before = [logger.level for logger in silenced]
        for logger in silenced:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        except UsageError:
            raise
        except FAILURES as error:
            raise self._unreadable(error, part) from error
        finally:
            for logger, level in zip(silenced, before, strict=True):
                logger.setLevel(level)

    def _unreadable(self, error: BaseException, part: Part | None, where: str = "") -> UsageError:
        """What could not be read: the file and the row, where they can be found."""
        said = " ".join(str(error.__cause__ or error).split()) or type(error).__name__
        if part is not None:
            files = self._source.files.get(part.sliced.partition("[")[0], ())
            found = bad_place(files, self._source.format, self._entry.column)
            where, said = ("", found) if found else (where, said)
        return UsageError(
            f"corpus {self._entry.name} cannot be read: {where}{said[:300]}; {self._help}"
        )


@final
class RowCursor(Cursor):
    """A place among the rows of a split."""

    def __init__(self, corpus: LibraryCorpus, part: Part) -> None:
        self._corpus, self._part = corpus, part
        self._rows: Any = None
        self.restore({"row": 0, "library": None})

    def take(self, number: int) -> list[str]:
        if self._rows is None:
            self._open()
        taken: list[str] = []
        while len(taken) < number:
            row = self._corpus.next_row(self._rows, self._part, self._row)
            if row is None:
                self.restore({"row": 0, "library": None})
                break
            if self._row % PERIOD in self._part.residues:
                taken.append(self._corpus.text(row, self._row))
            self._row += 1
        return taken

    def position(self) -> dict[str, Any]:
        if self._rows is None:
            return self._start
        return {"row": self._row, "library": self._stream.state_dict()}

    def restore(self, position: Mapping[str, Any]) -> None:
        if self._rows is not None and position == self.position():
            return
        self._start, self._row = dict(position), int(position["row"])
        self._rows = None

    def _open(self) -> None:
        self._stream = self._corpus.open_stream(self._part)
        if self._start["library"] is not None:
            self._stream.load_state_dict(self._start["library"])
        self._rows = iter(self._stream)


def parts(entry: Entry, names: Sequence[str]) -> dict[str, Part]:
    """The place of each split: as the entry says, or as the corpus has its splits.

    Raises:
        UsageError: there are several splits, and none of them is named train.
    """
    if entry.splits:
        return {name: Part(entry.splits[name]) for name in SPLITS if name in entry.splits}
    called = {
        split: next((name for name in (split, *others) if name in names), "")
        for split, others in ALSO_CALLED.items()
    }
    if len(names) == 1 and names[0] not in called.values():
        train = names[0]
    elif called["train"]:
        train = called["train"]
    elif names and set(names) <= set(called.values()):
        return {split: Part(called[split]) for split in SPLITS if called[split]}
    else:
        raise UsageError(
            f"corpus {entry.name} has the splits {', '.join(names) or '(none)'}, but none is train;"
            " say which they are in a .yaml file: splits: {train: ..., validation: ...}"
        )
    cut = {name: residue for name, residue in HELD_OUT.items() if not called[name]}
    found = {"train": Part(train, frozenset(range(PERIOD)) - frozenset(cut.values()))}
    for name in HELD_OUT:
        part = Part(train, frozenset({cut[name]})) if name in cut else Part(called[name])
        found[name] = part
    return found


def from_hub(entry: Entry, path: str | None) -> LibraryCorpus:
    """A corpus of the catalogue, or a copy of it in a folder."""
    if path is None and not Path(entry.path).expanduser().is_dir():
        arguments = {
            "path": entry.path,
            "name": entry.config,
            "revision": entry.revision,
            "data_files": dict(entry.files) or None,
        }

        def ask_hub() -> Source:
            working(f"asking the hub for {entry.name}")  # half a minute where nothing answers
            try:
                return Loaded(**arguments)
            finally:
                working("")

        return LibraryCorpus(entry, ask_hub, HUB_HELP)
    folder = Path(path or entry.path).expanduser()
    if not folder.is_dir():
        raise UsageError(
            f"{folder} is no directory; for corpus {entry.name}, --data.path is a folder that "
            "holds it"
        )
    return LibraryCorpus(entry, lambda: _open_folder(folder, entry.config), LOCAL_HELP)


def _open_folder(folder: Path, config: str | None) -> Source:
    if config and (folder / config).is_dir():
        return _open_folder(folder / config, None)
    if any((folder / name).is_file() for name in SAVED):
        return Saved(str(folder))
    known = datasets.get_dataset_config_names(str(folder)) if config else []
    return Loaded(path=str(folder), name=config if config in known else None)


def from_files(format: str, options: DataOptions) -> LibraryCorpus:
    """A corpus of the user's own files in one format: json or parquet.

    Raises:
        UsageError: there are no such files.
    """
    path = _require_path(format, options, LOCAL_HELP)

    def open_source() -> Source:
        if not path.is_dir():
            return Loaded(path=format, data_files=str(path))
        found = Loaded(path=str(path))
        if found.format != format:
            raise ValueError(f"it holds {found.format}, not {format}")
        return found

    return LibraryCorpus(_own(format, options), open_source, LOCAL_HELP)


def from_saved(options: DataOptions) -> LibraryCorpus:
    """A corpus in a folder that save_to_disk wrote.

    Raises:
        UsageError: the path is no such folder.
    """
    path = _require_path("saved", options, SAVED_HELP)
    return LibraryCorpus(_own("saved", options), lambda: Saved(str(path)), SAVED_HELP)


def _require_path(corpus: str, options: DataOptions, help: str) -> Path:
    if options.path is None:
        raise UsageError(f"corpus {corpus} needs --data.path; {help}")
    return Path(options.path).expanduser()


def _own(corpus: str, options: DataOptions) -> Entry:
    return Entry(corpus, str(options.path), column=options.column or "text")
