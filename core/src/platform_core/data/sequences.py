"""Data: a corpus as sequences of token ids, in three splits, packed once and then memory-mapped.

    documents -> BOS text EOS BOS text EOS ... -> rows of `length` tokens, the last one padded

Other ways of packing are in `packing`. With `--data.document_masks`, rows know to which document
each token belongs. With `--data.streaming`, training sequences are not packed here but read as they
are needed.

Prompts with their answers (`--data.prompt_column`) are packed by `pairs`: only answers count, and
prompts are given.

With labels (`--data.label`), documents of one label are packed together and apart from all others,
so that every sequence has one label.

Cache entries depend on content, tokenizer and length, and are shared by processes and runs.
`Order` says which training sequences a step takes: the position of the loader is the step number,
so a resumed run needs to restore nothing. Used by training, evaluation and `ngram`.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from platform_core.composition.options import DataOptions
from platform_core.data.cache import cached
from platform_core.data.corpus import Corpus, LabelledCorpus, PairedCorpus, open_corpus
from platform_core.data.packing import Packing, Rows, choose
from platform_core.data.pairs import paired_rows
from platform_core.data.tokenizer import CharacterTokenizer, Ids, Tokenizer, load_tokenizer
from platform_core.data.tokenizer.base import BuiltTokenizer
from platform_core.data.tokenizer.sources import CHARACTERS, open_tokenizer
from platform_core.draws import derive_seed
from platform_core.errors import UsageError, did_you_mean, either
from platform_core.record.files import digest_of, write_json
from platform_core.registry.loading import installed
from platform_core.types import Batch, Labels

ROWS = "rows.arrow"
"""File name of a packed split."""


class Sequences(ABC):
    """Base class of sequences that are fetched by number."""

    @abstractmethod
    def batch(self, indices: Sequence[int]) -> Batch:
        """The sequences of these numbers, `[n, length]`, with all that is known of them."""


class PackedRows:
    """The rows of a packed split, memory-mapped and never copied as a whole.

    Columns are `ids` `[rows, length]`, `counted` and `characters` `[rows]`, and where they were
    packed `documents` `[rows, length]`, `label` `[rows]` and `first` `[rows]`, the place of the
    first token that counts; all that do not count are then given.

    Args:
        batches: Arrow record batches of the columns, at least one.
    """

    def __init__(self, batches: Sequence[Any]) -> None:
        self.columns = tuple(batches[0].schema.names)
        self._batches = [
            {name: _values(batch.column(name)) for name in self.columns} for batch in batches
        ]
        self._starts = np.cumsum([0, *(batch.num_rows for batch in batches)])

    @classmethod
    def open(cls, file: Path) -> "PackedRows":
        """Open the rows that `pack_split` wrote to a file."""
        return cls(list(pa.ipc.open_stream(pa.memory_map(str(file)))))

    def __len__(self) -> int:
        return int(self._starts[-1])

    def take(self, column: str, places: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """The rows of a column at these places, in the order of the places."""
        first = self._batches[0][column]
        taken = np.empty((len(places), *first.shape[1:]), dtype=first.dtype)
        batches = np.searchsorted(self._starts, places, side="right") - 1
        for batch in np.unique(batches).tolist():
            here = batches == batch
            taken[here] = self._batches[batch][column][places[here] - self._starts[batch]]
        return taken


class TokenSplit(Sequences):
    """Sequences of one split, in the documents' order; all tokens except padding count.

    Args:
        rows: rows as they were packed.
        tokenizer: tokenizer of the tokens.
        places: indices of the rows, in order; None for all rows.
    """

    def __init__(
        self,
        rows: PackedRows,
        tokenizer: Tokenizer,
        places: npt.NDArray[np.int64] | None = None,
    ) -> None:
        self._rows, self._tokenizer = rows, tokenizer
        self._places = np.arange(len(rows)) if places is None else places

    def __len__(self) -> int:
        return len(self._places)

    def batch(self, indices: Sequence[int]) -> Batch:
        """Sequences by number, with the labels and documents that they were packed with."""
        ids, counted = self._arrays(indices)
        labels, documents = (self._known(name, indices) for name in ("label", "documents"))
        tokens = torch.from_numpy(ids.astype(np.int64))
        mask = torch.from_numpy(counted)
        given = ~mask if self.paired else None
        return Batch(tokens, mask, labels, documents, given=given)

    @property
    def paired(self) -> bool:
        """Whether sequences are prompts with their answers, of which only the answers count."""
        return "first" in self._rows.columns

    def spread(self, number: int) -> "TokenSplit":
        """`number` sequences at even distances, to represent all documents; 0 for all sequences."""
        if not 0 < number < len(self):
            return self
        places = np.linspace(0, len(self), number, endpoint=False).astype(np.int64)
        return self._with(self._places[places])

    def tokens(self) -> Ids:
        """The counted tokens, one after another."""
        ids, counted = self._arrays(range(len(self)))
        return ids[counted]

    def num_tokens(self) -> int:
        return len(self.tokens())

    def num_characters(self) -> int:
        """Characters of the text in the rows, as they were counted when it was read."""
        if "characters" in self._rows.columns:
            return int(self._take("characters", range(len(self))).sum())
        return self._tokenizer.count_characters(self.tokens())

    def _known(self, column: str, indices: Sequence[int]) -> torch.Tensor | None:
        if column not in self._rows.columns:
            return None
        return torch.from_numpy(self._take(column, indices).astype(np.int64))

    def _take(self, column: str, indices: Sequence[int]) -> npt.NDArray[Any]:
        return self._rows.take(column, self._places[np.asarray(indices, dtype=np.int64)])

    def _arrays(self, indices: Sequence[int]) -> tuple[Ids, npt.NDArray[np.bool_]]:
        ids, counted = self._take("ids", indices), self._take("counted", indices)
        places = np.arange(ids.shape[1])
        kept = places < counted[:, None]
        if self.paired:
            kept &= places >= self._take("first", indices)[:, None]
        return ids, kept

    def _with(self, places: npt.NDArray[np.int64]) -> "TokenSplit":
        return TokenSplit(self._rows, self._tokenizer, places)


class LabelledSplit(TokenSplit):
    """Sequences of one split, one label after another; labels are numbered by their names."""

    def __init__(
        self,
        rows: PackedRows,
        tokenizer: Tokenizer,
        names: tuple[str, ...],
        places: npt.NDArray[np.int64] | None = None,
    ) -> None:
        super().__init__(rows, tokenizer, places)
        self.names = names

    def labels(self, indices: Sequence[int]) -> Labels:
        """The label of each sequence, as an index into `names`."""
        return torch.from_numpy(self._take("label", indices).astype(np.int64))

    def _with(self, places: npt.NDArray[np.int64]) -> TokenSplit:
        return LabelledSplit(self._rows, self._tokenizer, self.names, places)


@dataclass(frozen=True)
class Data:
    """Splits and the tokenizer that made them.

    Args:
        tokenizer: the given tokenizer, or the one that the options name.
        splits: the splits that were asked for, by name.
        fingerprint: digest of all that determines the tokens of all splits; part of the cache keys
            of what is derived from them.
        text: fingerprint of the corpus, however it is cut.
    """

    tokenizer: Tokenizer
    splits: Mapping[str, TokenSplit]
    fingerprint: str
    text: str

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the labels; none where sequences have none."""
        splits = self.splits.values()
        return next((split.names for split in splits if isinstance(split, LabelledSplit)), ())

    def split(self, name: str) -> TokenSplit:
        """The split train, validation or test."""
        return self.splits[name]


def load_data(
    options: DataOptions,
    tokenizer: Tokenizer | None = None,
    labels: Sequence[str] = (),
    splits: Sequence[str] | None = None,
) -> Data:
    """The data that the options describe, from the cache if they were packed before.

    Without a tokenizer, the one that `options.tokenizer` names is used: by default every character
    of all three splits. With a tokenizer, such as a run's, `options.unknown` decides about
    characters that it lacks. Where the options ask for labels, the given names number them; without
    names, the labels are all those of the training split. Splits are packed one by one: those asked
    for, or all that the corpus has but a streamed one.

    Raises:
        UsageError: no such corpus or tokenizer, not enough text, characters unknown to the
            tokenizer, labels that the corpus or its training split lacks, or a cache directory that
            cannot be written.
    """
    if options.length < 1:
        raise UsageError(f"--data.length is {options.length}; a sequence has at least 1 token")
    corpus = open_corpus(options)
    fingerprint = corpus.fingerprint()
    if tokenizer is None:
        tokenizer = _chosen_tokenizer(options, corpus, fingerprint)
    tokenizer = tokenizer.with_unknown(options.unknown)
    names: tuple[str, ...] = ()
    if options.label is not None:
        labelled = _require_labels(corpus, options, options.label)
        names = tuple(labels) or _label_names(labelled, fingerprint, options.label)
    if splits is None:
        splits = [name for name in corpus.splits if not (options.streaming and name == "train")]
    elif options.streaming and "train" in splits:
        raise UsageError(
            "training text is streamed and never whole; choose another --evaluate.split, or leave "
            "out --data.streaming"
        )
    source = _Source(corpus, tokenizer, options, names)
    key = (fingerprint, tokenizer.to_dict(), options.length, *source.way)
    loaded = {name: source.load(name, key) for name in dict.fromkeys(splits)}
    return Data(tokenizer, loaded, digest_of(key), fingerprint)


@dataclass(frozen=True)
class _Source:
    """All from which splits are packed: corpus, tokenizer, options and names of labels."""

    corpus: Corpus
    tokenizer: Tokenizer
    options: DataOptions
    names: tuple[str, ...]

    @property
    def way(self) -> tuple[Any, ...]:
        """Packing, marks, masks and labels, as a part of cache keys."""
        packing, marks = packing_of(self.corpus, self.options)
        paired = ("pairs", self.corpus.infills) if isinstance(self.corpus, PairedCorpus) else ()
        cut = self.options.document_masks, self.options.label, self.names
        return (packing, marks, *cut, *paired)

    def load(self, split: str, key: tuple[Any, ...]) -> TokenSplit:
        """One split from the cache, packed if the cache lacks it."""
        entry = cached("packed", (*key, split), lambda path: pack_split(self, split, path / split))
        rows = PackedRows.open(entry / split / ROWS)
        if self.names:
            return LabelledSplit(rows, self.tokenizer, self.names)
        return TokenSplit(rows, self.tokenizer)

    def tables(self, split: str, packing: Packing) -> Iterator[Any]:
        """The packed rows of a split, as Arrow tables of one schema."""
        if isinstance(self.corpus, PairedCorpus):
            yield from pair_tables(self.corpus, split, self.tokenizer, self.options.length)
            return
        masks = self.options.document_masks
        for label, documents in self.groups(split):
            encoded = self.tokenizer.encode_counted(documents)
            for rows, characters in packing.counted_rows(encoded):
                yield table(rows, label, characters, with_documents=masks)

    def groups(self, split: str) -> Iterator[tuple[int | None, Iterable[str]]]:
        """Documents that are packed together, with the number of their label or None."""
        documents = self.corpus.documents(split)
        if not self.names:
            yield None, documents
            return
        assert isinstance(self.corpus, LabelledCorpus), "labels are of a labelled corpus"
        kind = str(self.options.label)
        by_name: dict[str, list[str]] = {name: [] for name in self.names}
        for text, label in zip(documents, self.corpus.labels(split, kind), strict=True):
            if label not in by_name:
                raise UsageError(
                    f"the {split} split has text of {kind} {label!r}, which training lacks; "
                    "choose another --data.label"
                )
            by_name[label].append(text)
        yield from enumerate(by_name.values())


def _require_labels(corpus: Corpus, options: DataOptions, kind: str) -> LabelledCorpus:
    if not isinstance(corpus, LabelledCorpus):
        raise UsageError(
            f"corpus {options.corpus} has no labels; leave out --data.label {kind}, or choose "
            "--data.corpus sotu"
        )
    if kind not in corpus.kinds:
        raise UsageError(
            f"corpus {options.corpus} has no label {kind}; --data.label is "
            f"{either(list(corpus.kinds))}{did_you_mean(kind, corpus.kinds)}"
        )
    return corpus


class Order:
    """Which training sequences each optimizer step takes: a pure function of (seed, step).

    Every epoch visits every sequence once, in an order of its own drawn from (seed, epoch); batches
    run on across the ends of epochs.
    """

    def __init__(self, num_sequences: int, seed: int) -> None:
        assert num_sequences > 0, "there is nothing to order"
        self.num_sequences, self.seed = num_sequences, seed
        self._epoch = -1
        self._permutation = np.empty(0, dtype=np.int64)

    def rows(self, step: int, batch_size: int) -> list[int]:
        """The sequences of step number `step`, counted from 0."""
        start, stop = step * batch_size, (step + 1) * batch_size
        rows: list[int] = []
        while start < stop:
            epoch, offset = divmod(start, self.num_sequences)
            taken = self._of_epoch(epoch)[offset : offset + stop - start]
            rows += taken.tolist()
            start += len(taken)
        return rows

    def row(self, number: int) -> int:
        """The sequence that comes as number `number`, counted from 0 over all epochs."""
        epoch, offset = divmod(number, self.num_sequences)
        return int(self._of_epoch(epoch)[offset])

    def _of_epoch(self, epoch: int) -> npt.NDArray[np.int64]:
        if epoch != self._epoch:
            generator = np.random.default_rng(derive_seed(self.seed, "order", epoch))
            self._epoch, self._permutation = epoch, generator.permutation(self.num_sequences)
        return self._permutation


def _chosen_tokenizer(options: DataOptions, corpus: Corpus, fingerprint: str) -> Tokenizer:
    name = options.tokenizer
    kind = CharacterTokenizer.kind if name == CHARACTERS else name
    plugins = installed()
    found = plugins.load("tokenizer", kind) if plugins.find("tokenizer", kind) else None
    if found is None or not issubclass(found, BuiltTokenizer):
        _, marks = packing_of(corpus, options)
        return open_tokenizer(name, end_token=options.end_token, needs_end=marks != "none")
    if options.end_token is not None:
        raise UsageError(
            f"--data.end_token is for tokenizers of transformers, and {name} has an end of its "
            "own; leave it out"
        )

    def build(path: Path) -> None:
        texts = (text for split in corpus.splits for text in corpus.documents(split))
        write_json(path / "tokenizer.json", found.of_texts(texts).to_dict())

    key = fingerprint if name == CHARACTERS else (fingerprint, kind)
    return load_tokenizer(cached("tokenizers", key, build) / "tokenizer.json")


def _label_names(corpus: LabelledCorpus, fingerprint: str, kind: str) -> tuple[str, ...]:
    """The labels of the training split, in alphabetical order."""

    def build(path: Path) -> None:
        write_json(path / "labels.json", {"names": sorted(set(corpus.labels("train", kind)))})

    entry = cached("labels", (fingerprint, kind), build)
    return tuple(json.loads((entry / "labels.json").read_text())["names"])


def packing_of(corpus: Corpus, options: DataOptions) -> tuple[str, str]:
    """Names of packing and marks: from the options, else from the corpus."""
    return options.packing or corpus.packing, options.marks or corpus.marks


def packer(corpus: Corpus, tokenizer: Tokenizer, options: DataOptions) -> Packing:
    """The packing that turns the documents of a corpus into sequences."""
    packing, marks = packing_of(corpus, options)
    return choose(tokenizer, options.length, packing=packing, marks=marks)


def pack_split(source: _Source, split: str, folder: Path) -> None:
    """Write the rows of one split into a folder, one label after another.

    Raises:
        UsageError: the split has less than one sequence.
    """
    options = source.options
    packing = packer(source.corpus, source.tokenizer, options)
    number = 0
    folder.mkdir()
    with pa.OSFile(str(folder / ROWS), "wb") as sink:
        writer = None
        for found in source.tables(split, packing):
            writer = writer or pa.ipc.new_stream(sink, found.schema)
            writer.write_table(found)
            number += pc.sum(found["counted"]).as_py() or 0
        if writer is not None:
            writer.close()
    if number < (options.length if packing.fills else 1):
        raise UsageError(
            f"corpus {options.corpus} has {number} tokens in its {split} split, less than one "
            f"sequence of --data.length {options.length}; {source.corpus.advice(split)}"
        )


def table(
    rows: Rows,
    label: int | None = None,
    characters: npt.NDArray[np.int64] | None = None,
    *,
    with_documents: bool = False,
) -> Any:
    """Arrow table of rows with columns `ids` and `counted`, and of the others what is given."""
    length = rows.ids.shape[1]
    columns = {"ids": _column(rows.ids), "counted": pa.array(rows.counted)}
    if with_documents:
        columns["documents"] = _column(rows.documents.astype(np.min_scalar_type(length)))
    if label is not None:
        columns["label"] = pa.array(np.full(len(rows.ids), label, dtype=np.int32))
    if characters is not None:
        columns["characters"] = pa.array(characters)
    return pa.table(columns)


def pair_tables(
    corpus: PairedCorpus, split: str, tokenizer: Tokenizer, length: int
) -> Iterator[Any]:
    """Arrow tables of the pairs of a split: columns `ids`, `counted`, `first` and `characters`.

    Raises:
        UsageError: a pair does not fit into a sequence.
    """
    for rows in paired_rows(corpus.pairs(split), split, tokenizer, length, infills=corpus.infills):
        given = {"first": pa.array(rows.first), "characters": pa.array(rows.characters)}
        yield pa.table({"ids": _column(rows.ids), "counted": pa.array(rows.counted), **given})


def _column(matrix: npt.NDArray[Any]) -> Any:
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), matrix.shape[1])


def _values(column: Any) -> npt.NDArray[Any]:
    """A column as an array over the memory-mapped file; pyarrow's `to_numpy` imports pandas."""
    if not pa.types.is_fixed_size_list(column.type):
        return np.from_dlpack(column)
    return np.from_dlpack(column.flatten()).reshape(len(column), column.type.list_size)
