"""Which tokens are alike: those that are spelt alike, or, without a spelling, have near ids.

D3PM takes the nearest neighbours of pretrained embeddings. Spelling needs nothing but the
tokenizer of the run.
"""

import unicodedata
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from platform_core.data.tokenizer.base import Tokenizer

CPU = torch.device("cpu")


def spelling(texts: Sequence[str]) -> Tensor:
    """How alike texts are, `[texts, texts]`, float64 from 0 to 1: the cosine of what they have.

    They have their characters, those without case, the kinds of these (letter, digit, blank),
    whether they are vowels, pairs of neighbouring characters, and a number of characters.
    """
    counted = [Counter(_features(text)) for text in texts]
    names = {name: place for place, name in enumerate(sorted(set().union(*counted)))}
    table = torch.zeros(len(texts), len(names), dtype=torch.float64, device=CPU)
    for row, features in enumerate(counted):
        for name, number in features.items():
            table[row, names[name]] = number
    table = functional.normalize(table, dim=-1)
    return table @ table.T


def _features(text: str) -> list[str]:
    bare = text.casefold()
    kinds = [f"kind {unicodedata.category(character)[0]}" for character in text]
    vowels = [f"vowel {character in 'aeiou'}" for character in bare if character.isalpha()]
    pairs = [first + second for first, second in zip(bare, bare[1:], strict=False)]
    return [*text, *(f"bare {it}" for it in bare), *kinds, *vowels, *pairs, f"length {len(text)}"]


def nearness(number: int) -> Tensor:
    """How near ids are on a ring of ids, `[number, number]`, float64 from 0 to 1."""
    ids = torch.arange(number, dtype=torch.float64, device=CPU)
    apart = (ids[:, None] - ids).abs()
    return 1 - 2 * torch.minimum(apart, number - apart) / number


def alike(vocab_size: int, tokenizer: Tokenizer | None) -> Tensor:
    """How alike the tokens of a vocabulary are, `[vocab_size, vocab_size]`, float64.

    Args:
        vocab_size: number of tokens.
        tokenizer: gives the spelling of tokens; without one, ids near each other are alike.
    """
    if tokenizer is None:
        return nearness(vocab_size)
    return spelling([tokenizer.decode([token]) for token in range(vocab_size)])


def neighbourhood(similarity: Tensor, neighbours: int) -> Tensor:
    """Rates of jumps between neighbours, `[tokens, tokens]`, symmetric; a row sums to about 1.

        A = (N + N^T) / (2 k)     with N[i, j] = 1 if j is one of the k tokens most like i

    Source: D3PM, arXiv:2107.03006, appendix A.2.4.
    """
    size = len(similarity)
    number = min(neighbours, size - 1)
    own = torch.eye(size, dtype=torch.bool, device=CPU)
    nearest = similarity.masked_fill(own, -torch.inf).topk(number, dim=-1).indices
    chosen = torch.zeros(size, size, dtype=torch.float64, device=CPU).scatter_(1, nearest, 1.0)
    return (chosen + chosen.T) / (2 * number)
