"""The Gaussian diffusion whose argmax is uniform-state diffusion, and the operator T between them.

    w_t = a e_x + s eps,   a^2 = sigmoid(-gamma),  s^2 = sigmoid(gamma),   x_t = argmax_j w_t[j]
    p(mu) = P(x_t = x) = E_u[ Phi(mu + u)^(K-1) ],   u ~ N(0, 1),   mu = a / s = exp(-gamma / 2)
    alpha = T(a) = (K p - 1) / (K - 1)

By symmetry all tokens other than x are equally likely, so that the law of x_t given x is that of
uniform noise at signal level alpha. Only this marginal agrees: the path of argmaxes is no Markov
chain. The expectation is computed as a trapezoid sum, whose error is negligible for a smooth
integrand that vanishes at both ends. Used by the schedule `gaussian`, the curriculum and
distillation.

Source: DUO, arXiv:2506.10892, section 3.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from platform_core.types import Noise

NUM_NODES, REACH = 256, 9.0
"""Nodes of the trapezoid sum, and its range [-REACH, REACH] of u. In a wider range the nodes would
be too far apart for Phi^(K-1) at large K. This range cuts off 1e-18 of the normal law.
"""

LOOK_EVERY = {"cuda": 8}
"""Kind of device -> iterations after which the host looks whether a root is found; elsewhere 1."""

MAX_ITERATIONS, TOLERANCE, ROUNDING = 100, 1e-13, 1e-16

Gamma = Noise
"""-log of the signal-to-noise ratio a^2 / s^2; float64."""


def signal_to_noise(gamma: Gamma) -> Noise:
    """mu = a / s = exp(-gamma / 2)."""
    return (-gamma / 2).exp()


def amplitudes(gamma: Gamma) -> tuple[Noise, Noise]:
    """Amplitudes a of signal and s of noise: a^2 = sigmoid(-gamma), s^2 = sigmoid(gamma)."""
    return (-gamma).sigmoid().sqrt(), gamma.sigmoid().sqrt()


def hit_probability(mu: Noise, num_states: int) -> Noise:
    """p(mu): probability that the argmax is the clean token, from 1 / num_states at 0 to 1."""
    nodes, weights = _normal_nodes(mu)
    power = (num_states - 1) * torch.special.log_ndtr(mu[..., None] + nodes)
    hit: Noise = (weights * power.exp()).sum(-1)
    return hit


def hit_slope(mu: Noise, num_states: int) -> Noise:
    """dp / dmu > 0, in the form without cancellation.

    E_u[ (K - 1) phi(mu + u) Phi(mu + u)^(K-2) ]
    """
    nodes, weights = _normal_nodes(mu)
    z = mu[..., None] + nodes
    power = (num_states - 2) * torch.special.log_ndtr(z) - z.square() / 2
    slope: Noise = (weights * power.exp()).sum(-1)
    return (num_states - 1) / math.sqrt(2 * math.pi) * slope


def signal(gamma: Gamma, num_states: int) -> Noise:
    """Signal level alpha = T of the uniform-state diffusion at gamma; float64, error about 1e-15.

    Autograd gives `signal_slope` as the derivative.
    """
    return level_of(hit_probability(signal_to_noise(gamma), num_states), num_states)


def signal_slope(gamma: Gamma, num_states: int) -> Noise:
    """d alpha / d gamma = -(mu / 2) K / (K - 1) dp / dmu < 0."""
    mu = signal_to_noise(gamma)
    return -mu / 2 * num_states / (num_states - 1) * hit_slope(mu, num_states)


def signal_inverse(alpha: Noise, num_states: int) -> Gamma:
    """The gamma at which the signal level is alpha in (0, 1), to 1e-12 or better."""
    # In float64 alpha is 1 below the first end of the bracket and 0 above the second.
    cleanest = -2 * math.log(math.sqrt(2 * math.log(num_states)) + 2 * REACH)
    return falling_root(
        lambda gamma: signal(gamma, num_states),
        lambda gamma: signal_slope(gamma, num_states),
        alpha,
        (cleanest, 80.0),
    )


def window(num_states: int, clean: float = 0.95, noise: float = 0.05) -> tuple[float, float]:
    """gamma_min and gamma_max, at which the signal level is `clean` and `noise`.

    It depends on the number of states: (-3.57, -1.86) at 50,257 states, (-2.49, 2.73) at 10.
    """
    alphas = torch.tensor([clean, noise], dtype=torch.float64, device="cpu")
    gamma_min, gamma_max = signal_inverse(alphas, num_states).tolist()
    return gamma_min, gamma_max


def level_of(hit: Noise, num_states: int) -> Noise:
    """alpha of a hit probability p = P(x_t = x): (K p - 1) / (K - 1), clipped to [0, 1]."""
    return ((num_states * hit - 1) / (num_states - 1)).clamp(0, 1)


@torch.no_grad()
def falling_root(
    curve: Callable[[Tensor], Tensor],
    slope: Callable[[Tensor], Tensor],
    values: Noise,
    ends: tuple[float, float],
) -> Noise:
    """Arguments at which a falling curve takes the given values.

    Newton steps, replaced by bisection where they leave the bracket. A value outside the range of
    the curve gives the nearest end.
    """
    low, high = (torch.full_like(values, end) for end in ends)
    x = (low + high) / 2
    done = torch.zeros((), dtype=torch.bool, device=values.device)
    apart = LOOK_EVERY.get(values.device.type, 1)
    for number in range(1, MAX_ITERATIONS + 1):
        excess = curve(x) - values
        low, high = torch.where(excess > 0, x, low), torch.where(excess > 0, high, x)
        newton = x - excess / slope(x)
        inside = (low <= newton) & (newton <= high)
        following = torch.where(inside, newton, (low + high) / 2)
        following = torch.where(excess.abs() <= ROUNDING, x, following)
        arrived = ((following - x).abs() <= TOLERANCE).all()
        x = torch.where(done, x, following)
        done = done | arrived
        if number % apart == 0 and done:
            break
    return x


def _normal_nodes(like: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes u of an expectation under N(0, 1), and their weights, which sum to 1."""
    nodes = torch.linspace(-REACH, REACH, NUM_NODES, dtype=torch.float64, device=like.device)
    return nodes, (-nodes.square() / 2).softmax(-1)
