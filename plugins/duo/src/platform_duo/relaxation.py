"""Soft tokens: noisy one-hot vectors through a softmax instead of an argmax.

    w = a e_x + s eps,   eps ~ N(0, 1)^K        x_t = argmax w,   soft token = softmax(w / tau)

`DenseNoise` draws all K coordinates of w. `LargestNoise` draws only the k largest coordinates and
that of the clean token, from their exact law, and replaces exp(w / tau) of every other coordinate
by its mean; so it handles k numbers for each position, whatever K is. Used by the curriculum.

Source: DUO, arXiv:2506.10892, section 4; for the k largest, DUO's second paper, arXiv:2602.21185.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from platform_core.types import Noise, Probs, Tokens, TopTokens
from platform_duo.gaussian import Gamma, amplitudes

LEAST_UNIFORM = 2.0**-60
"""Replaces uniform numbers that are 0, which have no logarithm."""

Largest = Float[Tensor, "*batch k"]
"""The k largest noise coordinates, in descending order."""

Ids = Int[Tensor, "*batch k"]


class SoftTokens(NamedTuple):
    """Soft and hard tokens of a batch of clean tokens, from the same noise."""

    soft: Probs | TopTokens
    """softmax(w / tau), or its k largest entries."""
    hard: Tokens
    """Noisy tokens x_t."""


class Relaxation(ABC):
    """A way to draw soft and hard tokens from the same noise."""

    @abstractmethod
    def draw(self, x0: Tokens, gamma: Gamma, tau: float, generator: torch.Generator) -> SoftTokens:
        """Soft tokens at temperature tau and hard tokens, from the same noise at gamma."""


@final
class DenseNoise(Relaxation):
    """Draws the noise as defined: one normal number for each position and state."""

    def __init__(self, num_states: int) -> None:
        self.num_states = num_states

    def draw(self, x0: Tokens, gamma: Gamma, tau: float, generator: torch.Generator) -> SoftTokens:
        """Soft tokens as float32 probabilities, computed in float64 one sequence at a time."""
        shape = (*x0.shape, self.num_states)
        soft = torch.empty(shape, device=x0.device)
        hard = torch.empty_like(x0)
        for number, (clean, level) in enumerate(zip(x0, gamma, strict=True)):
            noise = torch.randn(
                shape[1:], generator=generator, dtype=torch.float64, device=x0.device
            )
            noisy = noisy_one_hot(clean, level, noise)
            hard[number] = noisy.argmax(-1)
            soft[number] = (noisy / tau).softmax(-1)
        return SoftTokens(soft, hard)


def noisy_one_hot(x0: Tokens, gamma: Gamma, noise: Probs) -> Probs:
    """w = a e_x + s eps; float64."""
    signal, scale = amplitudes(gamma)
    noisy = scale[..., None] * noise.double()
    return noisy.scatter_add_(-1, x0[..., None], signal.expand(x0.shape)[..., None])


class Top(NamedTuple):
    """The coordinates of w that `LargestNoise` draws."""

    ids: Ids
    """The k tokens other than the clean one with the largest coordinates, the largest first."""
    values: Largest
    """Coordinates of the tokens `ids`."""
    clean: Noise
    """The coordinate of the clean token."""


Argmax = Callable[[Tokens, Top], Tokens]
"""(x_0, draw) -> x_t."""

ArgmaxRule = Literal["exact", "in-top-k"]


@final
class LargestNoise(Relaxation):
    """Draws the k largest coordinates and the clean token's; uses the mean for all others.

    Args:
        num_states: K.
        top_k: k, from 2 to K - 1.
        argmax: how x_t is found. exact: the token of the largest coordinate. in-top-k: the clean
            token wherever it is among the k largest, as the published code does; x_t is then clean
            more often than the alpha of the loss says.

    Raises:
        ValueError: top_k is not from 2 to K - 1.
    """

    def __init__(self, num_states: int, top_k: int, argmax: ArgmaxRule = "exact") -> None:
        if not 2 <= top_k < num_states:
            raise ValueError(
                f"top_k is {top_k}; it must be at least 2 and below the {num_states:,} states, for "
                "example 2; leave it out for all of them"
            )
        self.num_states, self.top_k = num_states, top_k
        self.argmax = ARGMAX[argmax]

    def draw(self, x0: Tokens, gamma: Gamma, tau: float, generator: torch.Generator) -> SoftTokens:
        """Soft tokens as k float64 weights, which sum to less than 1, and hard tokens."""
        signal, scale = amplitudes(gamma)
        uniform = torch.rand(
            (*x0.shape, self.top_k), generator=generator, dtype=torch.float64, device=x0.device
        )
        normal = torch.randn(x0.shape, generator=generator, dtype=torch.float64, device=x0.device)
        top = Top(
            other_tokens(x0, self.top_k, self.num_states, generator),
            scale[..., None] * largest_normals(uniform, self.num_states - 1),
            signal + scale * normal,
        )
        soft = soften(x0, top, scale, tau, num_states=self.num_states)
        return SoftTokens(soft, self.argmax(x0, top))


def of_the_largest(x0: Tokens, top: Top) -> Tokens:
    """The token of the largest coordinate."""
    return torch.where(top.clean > top.values[..., 0], x0, top.ids[..., 0])


def clean_if_among_the_largest(x0: Tokens, top: Top) -> Tokens:
    """The clean token where at most k - 1 other coordinates are larger, else the largest token."""
    return torch.where(top.clean > top.values[..., -1], x0, top.ids[..., 0])


ARGMAX: Mapping[ArgmaxRule, Argmax] = {
    "exact": of_the_largest,
    "in-top-k": clean_if_among_the_largest,
}


def largest_normals(uniform: Largest, number: int) -> Largest:
    """The k largest of `number` independent standard normal numbers, in descending order.

    log U_(i) = sum_{j <= i} log u_j / (number - j + 1),  g_i = -Phi^-1(1 - U_(i))

    Args:
        uniform: k independent uniform numbers u, float64.
        number: how many normal numbers there are; only the k largest are drawn.
    """
    left = number - torch.arange(uniform.shape[-1], dtype=uniform.dtype, device=uniform.device)
    log_order = (uniform.clamp_min(LEAST_UNIFORM).log() / left).cumsum(-1)
    largest: Largest = -torch.special.ndtri(-log_order.expm1())
    return largest


def other_tokens(x0: Tokens, number: int, num_states: int, generator: torch.Generator) -> Ids:
    """Distinct tokens other than x_0, in random order; all such lists are equally likely.

    Each token is drawn as a rank among the tokens that are not taken yet.
    """
    taken = x0[..., None]
    for _ in range(number):
        left = num_states - taken.shape[-1]
        token = torch.randint(left, x0.shape, generator=generator, device=x0.device)
        for before in taken.sort(-1).values.unbind(-1):
            token += token >= before
        taken = torch.cat((taken, token[..., None]), dim=-1)
    return taken[..., 1:]


def soften(x0: Tokens, top: Top, scale: Noise, tau: float, *, num_states: int) -> TopTokens:
    """softmax(w / tau) at the k largest coordinates, which may include the clean token's.

        weight_i = exp(w_i / tau) / Z
        Z = sum over kept coordinates and x_0's + n E[ e^(X / tau) | X < c ],  X ~ N(0, s^2)

    where n is the number of all other coordinates and c the smallest kept coordinate of a token
    other than x_0. The share of the n coordinates in Z is left out of the weights, which therefore
    sum to less than 1.
    """
    top_k, last = top.ids.shape[-1], top.values[..., -1]
    among = top.clean > last
    ids, values = top.ids.clone(), top.values.clone()
    ids[..., -1] = torch.where(among, x0, ids[..., -1])
    values[..., -1] = torch.where(among, top.clean, last)
    ceiling = torch.where(among, top.values[..., -2], last)
    rest = torch.where(among, num_states - top_k, num_states - top_k - 1).double()
    tail = rest.log() + log_mean_exp_below(ceiling / tau, scale.expand(x0.shape) / tau)
    outside = torch.where(among, -math.inf, top.clean / tau)
    parts = torch.cat((values / tau, tail[..., None], outside[..., None]), dim=-1)
    log_total = parts.logsumexp(-1, keepdim=True)
    return TopTokens(ids, (values / tau - log_total).exp())


def log_mean_exp_below(ceiling: Noise, scale: Noise) -> Noise:
    """log E[ e^X | X < c ] of X ~ N(0, S^2), without cancellation at large S.

        S^2 / 2 + log Phi(b - S) - log Phi(b),   b = c / S
        S^2 / 2 + log Phi(b - S) = c - b^2 / 2 + log( erfcx((S - b) / sqrt 2) / 2 )

    In the first form numbers of the size S^2 cancel, 1e5 at the curriculum's temperatures. The
    second form is used where S > b; elsewhere its erfcx overflows.
    """
    bound = ceiling / scale
    below = torch.special.log_ndtr(bound)
    plain = scale.square() / 2 + torch.special.log_ndtr(bound - scale)
    scaled = (torch.special.erfcx((scale - bound) / math.sqrt(2)) / 2).log()
    mean: Noise = torch.where(scale > bound, ceiling - bound.square() / 2 + scaled, plain) - below
    return mean
