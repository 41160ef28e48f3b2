"""Corpora by the words that name them on a command line, and the shares of a mix of them.

    CORPUS  CORPUS=PATH                          a word after `platform eval --on`
    CORPUS[=PATH][:WEIGHT],CORPUS[=PATH]...      `--data.mix`

`shares` says what a training reads: the corpus of the options first, then those of its mix. Imports
no torch; used by composition, by `data/mix.py` and by the evaluation of texts.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from platform_core.composition.options import DataOptions
from platform_core.errors import UsageError

ROWS = ("json", "parquet", "saved")
"""Corpora of the user's own files of which only the user knows the column of the text."""

DECK = 65_536
"""Places after which every corpus of a mix has had exactly its share."""

FORM = "CORPUS[=PATH][:WEIGHT]"


@dataclass(frozen=True)
class Word:
    """A corpus and, where it needs one, its path."""

    corpus: str
    path: str | None = None

    @classmethod
    def read(cls, said: str, *, option: str, form: str = "CORPUS or CORPUS=PATH") -> "Word":
        """The corpus that a word names.

        Args:
            said: the word.
            option: option that the word is a value of, for the message.
            form: what such a word looks like, for the message.

        Raises:
            UsageError: it names none.
        """
        corpus, _, path = said.partition("=")
        if not corpus:
            raise UsageError(f"{option} {said} names no corpus; give {form}".replace("  ", " "))
        return cls(corpus, path or None)

    @property
    def name(self) -> str:
        """The corpus and its path in characters that suit a file name."""
        return re.sub(r"[^\w.-]+", "-", f"{self.corpus}-{self.path}" if self.path else self.corpus)

    def columns(self, own: DataOptions) -> dict[str, Any]:
        """The columns of the text, if only the user knows them; else the corpus's own."""
        names = ("column", "prompt_column", "answer_column", "suffix_column")
        return {name: getattr(own, name) if self.corpus in ROWS else None for name in names}

    def __str__(self) -> str:
        return f"{self.corpus}={self.path}" if self.path else self.corpus


class Share(NamedTuple):
    """One corpus of a mix."""

    word: Word
    quota: int
    """Places of the corpus in `DECK` places."""
    options: DataOptions
    """The options of the mix, for this corpus alone."""

    @property
    def part(self) -> float:
        """The corpus's part of all training sequences, from 0 to 1."""
        return self.quota / DECK


def shares(data: DataOptions) -> list[Share]:
    """The corpora that `data.mix` asks for, `data.corpus` first; none without a mix.

    Raises:
        UsageError: a word of the mix cannot be read, names a corpus twice or gives it no place in a
            deck; no word names another corpus; or sequences have labels.
    """
    if data.mix is None or data.mix == "none":
        return []
    if data.label is not None:
        raise UsageError(
            f"data.mix has no labels, and data.label is {data.label}; leave out one of the two"
        )
    own = Word(data.corpus, data.path)
    weights: dict[Word, float] = {}
    for said in data.mix.split(","):
        word, weight = _weighed(said)
        word = own if word == Word(own.corpus) else word
        if word in weights:
            raise UsageError(f"data.mix names {word} twice; give it one weight")
        weights[word] = weight
    if weights.keys() == {own}:
        raise UsageError(f"data.mix names only {own}, which is data.corpus; name other corpora too")
    weights = {own: weights.pop(own, 1.0), **weights}
    found = quotas(list(weights.values()))
    for word, quota in zip(weights, found, strict=True):
        if quota == 0:
            raise UsageError(
                f"data.mix gives {word} the weight {weights[word]:g} of {sum(weights.values()):g}, "
                f"less than one sequence in {DECK:,}; give it more"
            )
    return [
        Share(word, quota, data if word == own else _for(word, data))
        for word, quota in zip(weights, found, strict=True)
    ]


def quotas(weights: Sequence[float]) -> list[int]:
    """Whole numbers that add up to `DECK` and are as the weights, by largest remainders."""
    exact = [weight / sum(weights) * DECK for weight in weights]
    found = [math.floor(number) for number in exact]
    left = sorted(range(len(exact)), key=lambda i: (found[i] - exact[i], i))
    for place in left[: DECK - sum(found)]:
        found[place] += 1
    return found


def with_paths(mix: str | None, absolute: Callable[[str], str | None]) -> str | None:
    """The text of `data.mix` with a function applied to its paths."""
    if mix is None:
        return None
    words = []
    for said in mix.split(","):
        named, weight = _parted(said)
        corpus, given, path = named.partition("=")
        words.append(f"{corpus}{given}{(path and absolute(path)) or path}{weight}")
    return ",".join(words)


def _weighed(said: str) -> tuple[Word, float]:
    named, weight = _parted(said.strip())
    word = Word.read(named, option="data.mix", form=FORM)
    try:
        number = float(weight[1:]) if weight else 1.0
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise UsageError(
            f"data.mix gives {word} the weight {weight[1:]}; it must be a number above 0 ({FORM})"
        )
    return word, number


def _parted(said: str) -> tuple[str, str]:
    """The word without its weight, and `:WEIGHT`; a path may have colons of its own."""
    named, colon, weight = said.rpartition(":")
    if not colon or ("=" in named and not re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?|nan|inf", weight)):
        return said, ""
    return named, colon + weight


def _for(word: Word, data: DataOptions) -> DataOptions:
    return replace(data, corpus=word.corpus, path=word.path, **word.columns(data), mix=None)
