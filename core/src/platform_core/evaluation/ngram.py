"""N-gram baselines: bits per character of held-out text under models that only count tokens.

    p_1(w) = (c(w) + 1) / (N + V)
    p_n(w | h) = (c(hw) + k(h) p_{n-1}(w | h')) / (c(h) + k(h))

c counts in the training tokens, k(h) is how many different tokens follow h there, h' is h without
its first token; p_n = p_{n-1} where no token ever followed h. Every run reports these baselines
beside its own bits: both predict the same tokens, so the baselines too are stronger where tokens
are larger.
Source: interpolated Witten-Bell smoothing, Chen & Goodman 1998.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from platform_core.data.cache import cached
from platform_core.data.mix import PackedMix
from platform_core.data.sequences import Data
from platform_core.record.files import write_json

ORDER = 5

TRAIN_TOKENS = 10**8
"""Number of tokens counted in larger training splits, in evenly spread sequences."""

Integers = npt.NDArray[np.integer[Any]]
Probabilities = npt.NDArray[np.float64]


@dataclass(frozen=True)
class NgramBits:
    """Bits of all counted tokens of a text per character of the text, by n-gram order."""

    unigram: float
    bigram: float
    fivegram: float


def baselines(
    data: Data, split: str, sequences: int = 0, mix: PackedMix | None = None
) -> NgramBits:
    """Bits per character of `sequences` sequences of a split, spread evenly (0: all).

    The n-grams are estimated on the training split, or on `TRAIN_TOKENS` of it; of a mix, on the
    training splits of its corpora, of each as many sequences as its share says. Beginnings and ends
    of documents are predicted like other tokens, and contexts run across them and across sequences.
    The result is kept in the cache.
    """

    def build(path: Path) -> None:
        write_json(path / "bits.json", asdict(_measure(data, split, sequences, mix)))

    key = (data.fingerprint, split, sequences, *((mix.fingerprint,) if mix else ()))
    entry = cached("ngrams", key, build)
    return NgramBits(**json.loads((entry / "bits.json").read_text()))


def probabilities(
    train: Integers, held_out: Integers, *, vocab_size: int, order: int
) -> Iterator[Probabilities]:
    """Probability of each held-out token given the tokens before it, by n-grams of order 1, 2, ...

    At the beginning, where fewer tokens come before than the order asks for, all of them are used.
    Orders above the number of training tokens are left out, because they change nothing.
    """
    counts = np.bincount(train, minlength=vocab_size)
    law = ((counts + 1) / (len(train) + vocab_size))[held_out]
    yield law
    # An n-gram's number is its index in `seen`, the n-grams of the training tokens, so that codes
    # of pairs (n-gram, next token) stay small; held-out n-grams that training lacks are -1.
    codes, seen, grams = train.astype(np.int64), np.arange(vocab_size), held_out.astype(np.int64)
    for n in range(2, min(order, len(train)) + 1):
        num_contexts, contexts = len(seen), grams[:-1]
        codes = np.searchsorted(seen, codes)[:-1] * vocab_size + train[n - 1 :]
        seen, counts = np.unique(codes, return_counts=True)
        grams = _find(contexts * vocab_size + held_out[n - 1 :], seen)
        count = np.where(grams >= 0, counts[grams], 0)
        followed = np.bincount(seen // vocab_size, counts, num_contexts)[contexts]
        kinds = np.bincount(seen // vocab_size, minlength=num_contexts)[contexts]
        lower = law[n - 1 :]
        higher = (count + kinds * lower) / np.maximum(followed + kinds, 1)
        known = (contexts >= 0) & (followed > 0)
        law = np.concatenate([law[: n - 1], np.where(known, higher, lower)])
        yield law


def _find(values: Integers, ascending: Integers) -> npt.NDArray[np.int64]:
    """Index of each value in `ascending`, or -1 if it is missing."""
    places = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    return np.where(ascending[places] == values, places, -1)


def _measure(data: Data, split: str, sequences: int, mix: PackedMix | None) -> NgramBits:
    held_out = data.split(split).spread(sequences)
    train = data.split("train")
    number = TRAIN_TOKENS // train.batch([0]).x0.shape[1]
    laws = probabilities(
        mix.tokens(number) if mix else train.spread(number).tokens(),
        held_out.tokens(),
        vocab_size=data.tokenizer.vocab_size,
        order=ORDER,
    )
    characters = held_out.num_characters()
    bits = [float(-np.log2(law).sum()) / characters for law in laws]
    return NgramBits(unigram=bits[0], bigram=bits[1], fivegram=bits[-1])
