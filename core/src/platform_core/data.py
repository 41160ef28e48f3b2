"""Data: a corpus as sequences of token ids, in three splits, packed once and then memory-mapped.

    documents -> BOS text EOS BOS text EOS ... -> rows of `length` tokens, the last one padded

Where the beginning and the end are one token, it stands once between documents.

With labels (`--data.label`), documents of one label are packed together and apart from all others,
so that every sequence has one label.

The cache holds what content, tokenizer and length determine, and is shared by processes and runs.
`Order` says which training sequences a step takes: the position of the loader is the step number,
so a resumed run needs to restore nothing. Used by training, evaluation and `ngram`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from platform_core.cache import cached
from platform_core.corpus import SPLITS, Corpus, LabelledCorpus, open_corpus
from platform_core.draws import derive_seed
from platform_core.errors import UsageError
from platform_core.files import write_json
from platform_core.options import DataOptions
from platform_core.tokenizer import CharacterTokenizer, Ids, Tokenizer, load_tokenizer
from platform_core.tokenizer.sources import CHARACTERS, open_tokenizer
from platform_core.types import Labels, Selected, Tokens
from platform_core.wording import did_you_mean, either


class TokenSplit:
    """Sequences of one split, in the documents' order; all tokens count but padding."""

    def __init__(self, dataset: datasets.Dataset, tokenizer: Tokenizer) -> None:
        self._rows = dataset.with_format("arrow")
        self._tokenizer = tokenizer

    def __len__(self) -> int:
        return len(self._rows)

    def fetch(self, indices: Sequence[int]) -> tuple[Tokens, Selected]:
        """Sequences by number, `[n, length]`, and which of their tokens count."""
        ids, counted = _arrays(self._rows[list(indices)])
        return torch.from_numpy(ids.astype(np.int64)), torch.from_numpy(counted)

    def spread(self, number: int) -> "TokenSplit":
        """So many sequences at even distances, so that all documents are represented; 0 for all."""
        if not 0 < number < len(self):
            return self
        places = np.linspace(0, len(self), number, endpoint=False).astype(np.int64)
        return self._with(self._rows.select(places))

    def tokens(self) -> Ids:
        """The counted tokens, one after another."""
        ids, counted = _arrays(self._rows[:])
        return ids[counted]

    def num_tokens(self) -> int:
        """Counted tokens."""
        return len(self.tokens())

    def num_characters(self) -> int:
        """Characters of text that the counted tokens stand for."""
        return self._tokenizer.count_characters(self.tokens())

    def _with(self, rows: datasets.Dataset) -> "TokenSplit":
        return TokenSplit(rows, self._tokenizer)


class LabelledSplit(TokenSplit):
    """Sequences of one label after another; labels are numbered by their names."""

    def __init__(
        self, dataset: datasets.Dataset, tokenizer: Tokenizer, names: tuple[str, ...]
    ) -> None:
        super().__init__(dataset, tokenizer)
        self.names = names

    def labels(self, indices: Sequence[int]) -> Labels:
        """The label of each sequence, as its place among the names."""
        column = self._rows[list(indices)].column("label")
        return torch.from_numpy(column.to_numpy().astype(np.int64))

    def _with(self, rows: datasets.Dataset) -> TokenSplit:
        return LabelledSplit(rows, self._tokenizer, self.names)


def labels_of(split: TokenSplit, indices: Sequence[int]) -> Labels | None:
    """The labels of some sequences, if they have any."""
    return split.labels(indices) if isinstance(split, LabelledSplit) else None


@dataclass(frozen=True)
class Data:
    """Three splits and the tokenizer that made them.

    Args:
        tokenizer: the given one, or the one that the options name.
        splits: by name.
        fingerprint: of all tokens in all splits; keys what is derived from them.
    """

    tokenizer: Tokenizer
    splits: Mapping[str, TokenSplit]
    fingerprint: str

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the labels; none where sequences have none."""
        train = self.splits["train"]
        return train.names if isinstance(train, LabelledSplit) else ()

    def split(self, name: str) -> TokenSplit:
        """One of train, validation and test."""
        return self.splits[name]


def load_data(
    options: DataOptions, tokenizer: Tokenizer | None = None, labels: Sequence[str] = ()
) -> Data:
    """The data that the options describe, from the cache if they were packed before.

    Without a tokenizer, it is the one that `options.tokenizer` names: by default every character of
    all three splits. With one, of a run say, `options.unknown` decides about characters that it
    lacks. Where the options ask for labels, those are numbered by the given names, or are all of
    the training split.

    Raises:
        UsageError: no such corpus or tokenizer, not enough text, characters unknown to the
            tokenizer, labels that it lacks or training does, or a cache directory that cannot be
            written.
    """
    if options.length < 1:
        raise UsageError(f"--data.length is {options.length}; a sequence has at least 1 token")
    corpus = open_corpus(options)
    fingerprint = corpus.fingerprint()
    if tokenizer is None:
        tokenizer = _chosen_tokenizer(options.tokenizer, corpus, fingerprint)
    tokenizer = tokenizer.with_unknown(options.unknown)
    datasets.disable_progress_bars()
    key = (fingerprint, tokenizer.to_dict(), options.length)
    if options.label is None:
        entry = cached(
            "packed", key, lambda path: _pack_splits(corpus, tokenizer, options).save_to_disk(path)
        )
        splits = datasets.load_from_disk(entry)
        return Data(tokenizer, {n: TokenSplit(splits[n], tokenizer) for n in SPLITS}, entry.name)
    labelled = _require_labels(corpus, options, options.label)
    names = tuple(labels) or _label_names(labelled, fingerprint, options.label)
    entry = cached(
        "packed",
        (*key, options.label, names),
        lambda path: _pack_labelled_splits(labelled, tokenizer, options, names).save_to_disk(path),
    )
    splits = datasets.load_from_disk(entry)
    return Data(
        tokenizer, {n: LabelledSplit(splits[n], tokenizer, names) for n in SPLITS}, entry.name
    )


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

    def _of_epoch(self, epoch: int) -> npt.NDArray[np.int64]:
        if epoch != self._epoch:
            generator = np.random.default_rng(derive_seed(self.seed, "order", epoch))
            self._epoch, self._permutation = epoch, generator.permutation(self.num_sequences)
        return self._permutation


def _chosen_tokenizer(name: str, corpus: Corpus, fingerprint: str) -> Tokenizer:
    if name == CHARACTERS:
        return _character_tokenizer(corpus, fingerprint)
    return open_tokenizer(name)


def _character_tokenizer(corpus: Corpus, fingerprint: str) -> Tokenizer:
    def build(path: Path) -> None:
        characters: set[str] = set()
        for split in SPLITS:
            for text in corpus.documents(split):
                characters.update(text)
        write_json(path / "tokenizer.json", CharacterTokenizer("".join(characters)).to_dict())

    return load_tokenizer(cached("tokenizers", fingerprint, build) / "tokenizer.json")


def _label_names(corpus: LabelledCorpus, fingerprint: str, kind: str) -> tuple[str, ...]:
    """Those of the training split, in alphabetical order."""

    def build(path: Path) -> None:
        write_json(path / "labels.json", {"names": sorted(set(corpus.labels("train", kind)))})

    entry = cached("labels", (fingerprint, kind), build)
    return tuple(json.loads((entry / "labels.json").read_text())["names"])


def _pack_splits(
    corpus: Corpus, tokenizer: Tokenizer, options: DataOptions
) -> datasets.DatasetDict:
    return datasets.DatasetDict(
        {
            split: pack(_ids(corpus.documents(split), tokenizer), tokenizer, options, split)
            for split in SPLITS
        }
    )


def _pack_labelled_splits(
    corpus: LabelledCorpus, tokenizer: Tokenizer, options: DataOptions, names: Sequence[str]
) -> datasets.DatasetDict:
    kind = str(options.label)
    splits = {}
    for split in SPLITS:
        documents: dict[str, list[str]] = {name: [] for name in names}
        texts = corpus.documents(split)
        for text, label in zip(texts, corpus.labels(split, kind), strict=True):
            if label not in documents:
                raise UsageError(
                    f"the {split} split has text of {kind} {label!r}, which training lacks; "
                    "choose another --data.label"
                )
            documents[label].append(text)
        by_label = [_ids(texts, tokenizer) for texts in documents.values()]
        splits[split] = pack_by_label(by_label, tokenizer, options, split)
    return datasets.DatasetDict(splits)


def _ids(documents: Iterable[str], tokenizer: Tokenizer) -> Ids:
    ids_type = np.min_scalar_type(tokenizer.vocab_size - 1)
    begin, end = np.array([[tokenizer.bos_id], [tokenizer.eos_id]], dtype=ids_type)
    parts = [part for ids in tokenizer.encode_all(documents) for part in (begin, ids, end)]
    if tokenizer.bos_id == tokenizer.eos_id:
        # Once between documents: only the first has a beginning of its own.
        del parts[3::3]
    return np.concatenate([np.empty(0, ids_type), *parts], dtype=ids_type)


def pack(ids: Ids, tokenizer: Tokenizer, options: DataOptions, split: str) -> datasets.Dataset:
    """Rows of `options.length` ids with the number of those that count, which is all but in the
    last row.
    """
    _require_sequence(len(ids), options, split)
    return _dataset(_rows(ids, tokenizer, options.length))


def pack_by_label(
    by_label: Sequence[Ids], tokenizer: Tokenizer, options: DataOptions, split: str
) -> datasets.Dataset:
    """The rows of each label one after another, with its number; the last of each is padded."""
    _require_sequence(sum(map(len, by_label)), options, split)
    tables = []
    for label, ids in enumerate(by_label):
        rows = _rows(ids, tokenizer, options.length)
        column = pa.array(np.full(len(rows), label, dtype=np.int32))
        tables.append(rows.append_column("label", column))
    return _dataset(pa.concat_tables(tables))


def _require_sequence(number: int, options: DataOptions, split: str) -> None:
    if number < options.length:
        raise UsageError(
            f"corpus {options.corpus} has {number} tokens in its {split} split, less than one "
            f"sequence of --data.length {options.length}; give more text or a smaller length"
        )


def _rows(ids: Ids, tokenizer: Tokenizer, length: int) -> Any:
    """A table of rows of so many ids; none of no ids."""
    counted = np.full(-(-len(ids) // length), length, dtype=np.int32)
    padding = len(counted) * length - len(ids)
    counted[-1:] -= padding
    padded = np.pad(ids, (0, padding), constant_values=tokenizer.pad_id)
    rows = pa.FixedSizeListArray.from_arrays(pa.array(padded), length)
    return pa.table({"ids": rows, "counted": pa.array(counted)})


def _dataset(table: Any) -> datasets.Dataset:
    return datasets.Dataset(datasets.table.InMemoryTable(table))


def _arrays(table: Any) -> tuple[Ids, npt.NDArray[np.bool_]]:
    rows = table.column("ids").combine_chunks()
    ids = rows.flatten().to_numpy().reshape(len(rows), rows.type.list_size)
    counted = table.column("counted").to_numpy()
    return ids, np.arange(ids.shape[1]) < counted[:, None]
