"""Categorical draws that lose no rare tokens, and the truncations applied before them.

A float32 Gumbel or exponential race never picks categories below about 1e-8 often enough, which
lowers the entropy of samples without a word. Here one float64 uniform per row is looked up in a
float64 cumulative sum.
"""

from abc import ABC, abstractmethod

import torch

from platform_core.types import LogProbs, Probs, Tokens


def draw(probs: Probs, generator: torch.Generator) -> Tokens:
    """One category per row, by inverse cumulative distribution.

    Rows need not be normalised, but each must have a positive sum. A category of probability 0 is
    never drawn.
    """
    cumulative = probs.double().cumsum(-1)
    total = cumulative[..., -1:]
    uniform = torch.rand(total.shape, generator=generator, dtype=torch.float64, device=probs.device)
    # u is at most 1 - 2^-53, and u * total then never rounds up to total itself.
    return torch.searchsorted(cumulative, uniform * total, right=True).squeeze(-1)


class Truncation(ABC):
    """What a sampler removes from a denoiser's distribution before it draws."""

    @abstractmethod
    def __call__(self, log_probs: LogProbs) -> LogProbs:
        """The truncated and renormalised log-probabilities; removed tokens have -inf."""


class KeepAll(Truncation):
    """Removes nothing."""

    def __call__(self, log_probs: LogProbs) -> LogProbs:
        """The same log-probabilities."""
        return log_probs


class CleanOnly(Truncation):
    """Removes what is no token of the vocabulary (masks), then what another truncation removes."""

    def __init__(self, vocab_size: int, then: Truncation) -> None:
        self.vocab_size = vocab_size
        self.then = then

    def __call__(self, log_probs: LogProbs) -> LogProbs:
        """Log-probabilities with all their mass on the vocabulary."""
        clean = log_probs.clone()
        clean[..., self.vocab_size :] = float("-inf")
        return self.then(clean.log_softmax(-1))


class Nucleus(Truncation):
    """Keeps the smallest set of most likely tokens whose mass exceeds `top_p`, the token that
    crosses included.

    Source: Holtzman et al. 2019, arXiv:1904.09751, in the convention of DUO's code and of
    transformers.
    """

    def __init__(self, top_p: float) -> None:
        self.top_p = top_p

    def __call__(self, log_probs: LogProbs) -> LogProbs:
        """The nucleus of each row, renormalised."""
        ordered, order = log_probs.sort(dim=-1, descending=True)
        mass = ordered.exp()
        before = mass.double().cumsum(-1) - mass
        ordered = ordered.masked_fill(before > self.top_p, float("-inf"))
        kept = torch.empty_like(log_probs).scatter_(-1, order, ordered)
        return kept - kept.logsumexp(-1, keepdim=True)


def truncation(top_p: float) -> Truncation:
    """The truncation that a `top_p` option asks for; 1 keeps everything.

    Raises:
        ValueError: `top_p` is not in (0, 1].
    """
    if not 0 < top_p <= 1:
        raise ValueError(
            f"top_p is {top_p:g}; it must be above 0 and at most 1 (1 keeps every token)"
        )
    return Nucleus(top_p) if top_p < 1 else KeepAll()
