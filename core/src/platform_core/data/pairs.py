"""Prompts with their answers as rows of equal length, each pair in a row of its own.

    BOS prompt | answer EOS EOS ... EOS          the answer and every EOS count
    BOS prompt | answer | suffix EOS PAD ...     only the answer counts (infilling)

Prompt, answer and suffix are tokenized apart, so that a prompt has the same tokens without its
answer. What does not count is given: it gets no noise. Ends count up to the last place of the row,
because a diffusion fills every place and has to learn that nothing follows an answer; with a suffix
the places of the answer are known. Used by `sequences`.

Source: the fine-tuning of LLaDA, arXiv:2502.09992, which fills up answers with ends in this way.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from platform_core.data.corpus import Pair
from platform_core.data.packing import GROUP, Numbers
from platform_core.data.tokenizer import Tokenizer
from platform_core.errors import UsageError


class PairedRows(NamedTuple):
    """Rows of pairs, of which the tokens from `first` up to `counted` count."""

    ids: npt.NDArray[np.unsignedinteger[Any]]
    """Token ids, `[rows, length]`."""
    first: Numbers
    """`[rows]`: place of the answer's first token."""
    counted: Numbers
    """`[rows]`: place after the last token that counts."""
    characters: npt.NDArray[np.int64]
    """`[rows]`: characters of the answer."""


def paired_rows(
    pairs: Iterable[Pair], split: str, tokenizer: Tokenizer, length: int, *, infills: bool
) -> Iterator[PairedRows]:
    """Pack pairs into rows, and yield some rows at a time.

    Args:
        pairs: the pairs of one split.
        split: name of the split, for messages.
        tokenizer: tokenizer of the ids.
        length: tokens in a row.
        infills: whether pairs have suffixes.

    Raises:
        UsageError: a pair has no answer, or does not fit into a row.
    """
    remaining, number = iter(pairs), 0
    while group := list(islice(remaining, GROUP)):
        columns = [tokenizer.encode_all(texts) for texts in zip(*group, strict=True)]
        ids = np.full((len(group), length), tokenizer.eos_id, _type(tokenizer))
        first, counted = np.empty((2, len(group)), dtype=np.int32)
        for row, (prompt, answer, suffix) in enumerate(zip(*columns, strict=True)):
            number += 1
            parts = [[tokenizer.bos_id], prompt, answer, suffix, [tokenizer.eos_id]]
            text = np.concatenate(parts)
            _require_fit(len(text), len(answer), length, f"pair {number} of the {split} text")
            ids[row, : len(text)] = text
            first[row], counted[row] = 1 + len(prompt), length
            if infills:
                counted[row] = first[row] + len(answer)
                ids[row, len(text) :] = tokenizer.pad_id
        characters = np.array([len(pair.answer) for pair in group], dtype=np.int64)
        yield PairedRows(ids, first, counted, characters)


def _type(tokenizer: Tokenizer) -> npt.DTypeLike:
    return np.min_scalar_type(tokenizer.vocab_size - 1)


def _require_fit(tokens: int, answer: int, length: int, where: str) -> None:
    if not answer:
        raise UsageError(f"{where} has an empty answer; give it one, or leave it out")
    if tokens > length:
        raise UsageError(
            f"{where} has {tokens} tokens with its begin and end, and --data.length is {length}; "
            "raise it, or leave the pair out"
        )
