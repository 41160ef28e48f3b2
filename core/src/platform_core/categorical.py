"""Categorical sampling that loses no rare tokens, and truncations applied before sampling.

Gumbel-max and exponential races in float32 pick categories of probability below about 1e-8 too
rarely, which silently lowers the entropy of samples. `draw` instead looks up one float64 uniform
number per row in a float64 cumulative sum.

Every sampler passes the predicted law of the next token through one `Truncation` before it draws;
`truncation` makes it from the options temperature, top_k, top_p and min_p.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import reduce
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from platform_core.types import LogProbs, Probs, Tokens

Crossing = Literal["kept", "dropped"]
"""Whether a nucleus keeps or drops the token whose probability takes its mass across top_p."""

Removed = Bool[Tensor, "*batch states"]


Place = Float[Tensor, "*batch 1"]
Found = Int[Tensor, "*batch 1"]

BLOCK = 256
"""Number of categories in a block of the two-step lookup in `draw`."""


def draw(probs: Probs, generator: torch.Generator) -> Tokens:
    """Draw one category per row, by inversion of the cumulative distribution.

    Rows need not be normalised, but each must have a positive sum. A category of probability 0 is
    never drawn. The lookup in a wide row takes two steps, first a block of categories, then a
    category within the block, because a float64 cumulative sum of the whole row costs more than a
    network's last layer. The mass of a block is summed in the dtype of the row.
    """
    uniform = torch.rand(
        (*probs.shape[:-1], 1), generator=generator, dtype=torch.float64, device=probs.device
    )
    if probs.shape[-1] <= 2 * BLOCK:
        return _find(probs, uniform)[0].squeeze(-1)
    block, rest = _find(_block_masses(probs), uniform)
    category = block * BLOCK + torch.arange(BLOCK, device=probs.device)
    beyond = category >= probs.shape[-1]
    inner = probs.gather(-1, category.masked_fill_(beyond, 0)).masked_fill_(beyond, 0)
    return (block * BLOCK + _find(inner, rest)[0]).squeeze(-1)


def _find(masses: Probs, uniform: Place) -> tuple[Found, Place]:
    """Index of the mass that the uniform number falls into, and how far into it, in [0, 1)."""
    cumulative = masses.double().cumsum(-1)
    # u is at most 1 - 2^-53, and u * total then never rounds up to total itself.
    place = uniform.clamp(0, 1 - 2.0**-53) * cumulative[..., -1:]
    found = torch.searchsorted(cumulative, place, right=True)
    here = masses.gather(-1, found).double()
    return found, 1 - (cumulative.gather(-1, found) - place) / here


def _block_masses(probs: Probs) -> Float[Tensor, "*batch blocks"]:
    *batch, width = probs.shape
    blocks = width // BLOCK
    whole = blocks * BLOCK
    masses = probs[..., :whole].reshape(*batch, blocks, BLOCK).sum(-1)
    return torch.cat((masses, probs[..., whole:].sum(-1, keepdim=True)), dim=-1)


class Truncation(ABC):
    """A rule that sharpens the predicted distribution before a sampler draws, or removes tokens
    from it.
    """

    @abstractmethod
    def __call__(self, log_probs: LogProbs) -> LogProbs:
        """The truncated and renormalised log-probabilities; removed tokens have -inf."""


class KeepAll(Truncation):
    """The truncation that keeps every token."""

    def __call__(self, log_probs: LogProbs) -> LogProbs:
        return log_probs


class CleanOnly(Truncation):
    """Removes states outside the vocabulary (masks), then applies another truncation."""

    def __init__(self, vocab_size: int, then: Truncation) -> None:
        self.vocab_size = vocab_size
        self.then = then

    def __call__(self, log_probs: LogProbs) -> LogProbs:
        """Log-probabilities with all their mass on the vocabulary."""
        clean = log_probs.clone()
        clean[..., self.vocab_size :] = float("-inf")
        return self.then(clean.log_softmax(-1))


class InTurn(Truncation):
    """Applies two truncations one after the other."""

    def __init__(self, first: Truncation, then: Truncation) -> None:
        self.first, self.then = first, then

    def __call__(self, log_probs: LogProbs) -> LogProbs:
        return self.then(self.first(log_probs))


class Tempered(Truncation):
    """Raises probabilities to the power 1 / temperature and normalises them again."""

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature

    def __call__(self, log_probs: LogProbs) -> LogProbs:
        """Sharper rows for a temperature below 1, flatter ones above; the order of tokens stays."""
        return (log_probs / self.temperature).log_softmax(-1)


class TopK(Truncation):
    """Keeps the `top_k` most likely tokens, and any tokens that tie with the last of them.

    Source: Fan et al. 2018, arXiv:1805.04833.
    """

    def __init__(self, top_k: int) -> None:
        self.top_k = top_k

    def __call__(self, log_probs: LogProbs) -> LogProbs:
        """The most likely tokens of each row, renormalised."""
        number = min(self.top_k, log_probs.shape[-1])
        last = log_probs.topk(number, dim=-1).values[..., -1:]
        return log_probs.masked_fill(log_probs < last, float("-inf")).log_softmax(-1)


class MinP(Truncation):
    """Keeps the tokens that are at least `min_p` times as likely as the most likely one.

    Source: min-p sampling, arXiv:2407.01082.
    """

    def __init__(self, min_p: float) -> None:
        self.log_share = math.log(min_p)

    def __call__(self, log_probs: LogProbs) -> LogProbs:
        """The tokens of each row that are likely enough, renormalised."""
        least = log_probs.amax(-1, keepdim=True) + self.log_share
        return log_probs.masked_fill(log_probs < least, float("-inf")).log_softmax(-1)


class ByMass(Truncation, ABC):
    """Keeps the most likely tokens up to a total probability of about `top_p` (a nucleus)."""

    def __init__(self, top_p: float) -> None:
        self.top_p = top_p

    @abstractmethod
    def removed(self, mass: Probs) -> Removed:
        """Which tokens to remove, given float64 probabilities in descending order."""

    def __call__(self, log_probs: LogProbs) -> LogProbs:
        """The nucleus of each row, renormalised."""
        ordered, order = log_probs.sort(dim=-1, descending=True)
        removed = self.removed(ordered.exp().double())
        ordered = ordered.masked_fill(removed, float("-inf"))
        kept = torch.empty_like(log_probs).scatter_(-1, order, ordered)
        return kept - kept.logsumexp(-1, keepdim=True)


class Nucleus(ByMass):
    """Keeps the smallest set of most likely tokens whose mass exceeds `top_p`.

    Source: Holtzman et al. 2019, arXiv:1904.09751, in the convention of DUO's code and of
    transformers.
    """

    def removed(self, mass: Probs) -> Removed:
        """Removes a token if the tokens before it already exceed `top_p`."""
        return mass.cumsum(-1) - mass > self.top_p


class InnerNucleus(ByMass):
    """Keeps the largest set of most likely tokens whose mass is at most `top_p`, and at least
    the most likely token.

    Source: the convention of the code of ReMDM, arXiv:2503.00307, and BD3-LM, arXiv:2503.09573.
    """

    def removed(self, mass: Probs) -> Removed:
        """Removes a token if `top_p` is exceeded with it, except the most likely token."""
        beyond = mass.cumsum(-1) > self.top_p
        beyond[..., 0] = False
        return beyond


def truncation(
    top_p: float = 1.0,
    top_k: int | None = None,
    *,
    temperature: float = 1.0,
    min_p: float = 0.0,
    crossing: Crossing = "kept",
) -> Truncation:
    """Make the truncation that a sampler's options ask for.

    A sampler passes these options on as `**law`, so that every sampler has all of them. They apply
    in the order temperature, top_k, top_p, min_p, each to the renormalised law that the ones before
    leave, as in transformers.

    Args:
        top_p: draw only from the most likely tokens with this much probability; 1 is exact.
        top_k: draw only from this many most likely tokens (more where the last of them are equally
            likely); by default from all. 1 takes the most likely token.
        temperature: the law of each token is raised to the power 1 / temperature; 1 is exact, below
            1 prefers likely tokens.
        min_p: draw only from tokens at least this many times as likely as the most likely one; 0 is
            exact.
        crossing: whether the token with which top_p is exceeded is kept (as DUO and transformers
            do) or dropped (as ReMDM and BD3-LM do).

    Raises:
        ValueError: an option is out of its range.
    """
    _require_in_range(top_p, top_k, temperature, min_p)
    rules: list[Truncation] = []
    if temperature != 1:
        rules.append(Tempered(temperature))
    if top_k is not None:
        rules.append(TopK(top_k))
    if top_p < 1:
        rules.append(_NUCLEI[crossing](top_p))
    if min_p:
        rules.append(MinP(min_p))
    return reduce(InTurn, rules) if rules else KeepAll()


def _require_in_range(top_p: float, top_k: int | None, temperature: float, min_p: float) -> None:
    if not 0 < top_p <= 1:
        raise ValueError(
            f"top_p is {top_p:g}; it must be above 0 and at most 1 (1 keeps every token)"
        )
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k is {top_k}; it must be at least 1; leave it out to keep all")
    if not 0 < temperature < math.inf:
        raise ValueError(
            f"temperature is {temperature:g}; it must be above 0 (1 is exact); "
            "for the most likely tokens take top_k 1"
        )
    if not 0 <= min_p <= 1:
        raise ValueError(f"min_p is {min_p:g}; it must be from 0 (keeps every token) to 1")


_NUCLEI: Mapping[Crossing, type[ByMass]] = {"kept": Nucleus, "dropped": InnerNucleus}
