"""Texts on which a trained network is evaluated: its own corpus, or corpora that it never saw.

    --on ptb wikitext103 text=my/*.txt        --on zero-shot, the seven of published tables

Another corpus is packed and marked by the corpus's own defaults, with the run's tokenizer and
length. A corpus of the user's own rows, such as json, is read from the column of `--data.column`.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from platform_core.composition.corpora import Word
from platform_core.composition.options import DataOptions
from platform_core.errors import UsageError

ZERO_SHOT = (
    "ptb",
    "wikitext103",
    "lm1b",
    "lambada",
    "ag-news",
    "scientific-papers-pubmed",
    "scientific-papers-arxiv",
)
"""The corpora of the papers' zero-shot tables, in their order."""

SUITES = {"zero-shot": ZERO_SHOT}


class Text(NamedTuple):
    """A text and its name in file names; the run's own text has an empty name."""

    name: str
    options: DataOptions


def texts(words: Sequence[str], own: DataOptions) -> list[Text]:
    """The texts that the words after --on name; without words, the run's own text.

    Raises:
        UsageError: a word names no corpus, or the run reads labels, which other texts lack.
    """
    if not words:
        return [Text("", own)]
    if own.label is not None:
        raise UsageError(
            f"this network reads text given its {own.label}, which other corpora lack; leave out "
            "--on"
        )
    return [Text(word.name, _as_the_corpus_says(word, own)) for word in _expanded(words)]


def _expanded(words: Sequence[str]) -> list[Word]:
    found = {}
    for said in words:
        for word in SUITES.get(said, (said,)):
            found[word] = Word.read(word, option="--on")
    return list(found.values())


def _as_the_corpus_says(word: Word, own: DataOptions) -> DataOptions:
    return replace(
        own,
        corpus=word.corpus,
        path=word.path,
        **word.columns(own),
        packing=None,
        marks=None,
        streaming=False,
        mix=None,
    )
