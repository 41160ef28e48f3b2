"""Rewards that are computed from the text alone."""

import re
from typing import final

import torch
from torch import Tensor

from platform_core.data.tokenizer import Tokenizer
from platform_core.reward import Gains, Graded, Reward, Values
from platform_core.types import Noise, Selected, Tokens


@final
class Entropy(Graded):
    """The entropy of a text's own tokens, in nats: 0 where it repeats one token.

        H = log n - sum over tokens v of c_v log c_v / n       c_v of the n tokens are v

    Masks do not count.
    """

    def __init__(self, vocab_size: int, num_states: int) -> None:
        self.vocab_size, self.masks = vocab_size, num_states - vocab_size

    def __call__(self, texts: Tokens) -> Values:
        counts = self._counts(texts)
        return _entropy(counts.sum(-1), _x_log_x(counts).sum(-1))

    def gains(self, x_t: Tokens, selected: Selected, alpha_s: Noise, alpha_t: Noise) -> Gains:
        """The entropy with each token, or a mask, at one position; exact at every level."""
        states = torch.arange(self.vocab_size, device=x_t.device)
        counts = self._counts(x_t)[selected.nonzero()[:, 0]]
        counts -= (states == x_t[selected][:, None]).double()
        number, total = counts.sum(-1, keepdim=True), _x_log_x(counts).sum(-1, keepdim=True)
        with_token = _entropy(number + 1, total + _x_log_x(counts + 1) - _x_log_x(counts))
        with_mask = _entropy(number, total).expand(-1, self.masks)
        return torch.cat((with_token, with_mask), dim=-1)

    def _counts(self, texts: Tokens) -> Tensor:
        """How often each token stands in each text, `[batch, vocab_size]`."""
        counts = torch.zeros(
            len(texts), self.vocab_size + 1, dtype=torch.float64, device=texts.device
        )
        ones = torch.ones(texts.shape, dtype=torch.float64, device=texts.device)
        counts.scatter_add_(-1, texts.clamp_max(self.vocab_size), ones)
        return counts[:, : self.vocab_size]


def _x_log_x(counts: Tensor) -> Tensor:
    return torch.xlogy(counts, counts)


def _entropy(number: Tensor, total: Tensor) -> Tensor:
    """From the number of tokens and the sum of c log c; 0 of no tokens."""
    number = number.clamp_min(1)
    return number.log() - total / number


@final
class Matches(Reward):
    """How often a regular expression matches in the text.

    Args:
        pattern: the regular expression, in the syntax of Python's `re`; matches do not overlap.

    Raises:
        ValueError: the pattern is no regular expression.
    """

    def __init__(self, pattern: str, tokenizer: Tokenizer | None = None) -> None:
        try:
            self.pattern = re.compile(pattern)
        except re.error as error:
            raise ValueError(f"pattern {pattern!r} is no regular expression: {error}") from error
        self.tokenizer = tokenizer

    def __call__(self, texts: Tokens) -> Values:
        assert self.tokenizer is not None, "a run that draws texts has a tokenizer"
        read = map(self.tokenizer.decode, texts.tolist())
        counts = [float(sum(1 for _ in self.pattern.finditer(text))) for text in read]
        return torch.tensor(counts, dtype=torch.float64, device=texts.device)
