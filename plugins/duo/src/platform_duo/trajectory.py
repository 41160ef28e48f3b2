"""Exact paths of tokens through all noise levels of the Gaussian diffusion, three numbers each.

    x_t = argmax_j ( mu_t 1{j = x} + eps_j ),   the same eps for every t

At any time the argmax is either x or the token with the largest of the other K - 1 noises. So a
path takes two values: as t falls and mu rises, it changes once from the other token to x.

    M = max_{j != x} eps_j,  e = eps_x,  o = argmax_{j != x} eps_j;   x_t = x if mu_t + e > M else o

Three numbers are drawn for each token, instead of noise of the width of the vocabulary. Used by the
objective `discrete-consistency`.
"""

from typing import NamedTuple

import torch

from platform_core.types import Noise, Tokens
from platform_duo.relaxation import largest_normals


class Trajectory(NamedTuple):
    """The two values of each path, and the mu above which the path is at the clean token."""

    clean: Tokens
    other: Tokens
    needed: Noise
    """Threshold M - e of mu, float64."""

    def at(self, mu: Noise) -> Tokens:
        """Noisy tokens x_t at mu, the ratio of signal to noise."""
        return torch.where(mu > self.needed, self.clean, self.other)


def draw_trajectory(x0: Tokens, num_states: int, generator: torch.Generator) -> Trajectory:
    """One path for each token; at every mu the path has the law of uniform noise at T(mu)."""
    shape, device = x0.shape, x0.device
    uniform = torch.rand((*shape, 1), generator=generator, dtype=torch.float64, device=device)
    largest = largest_normals(uniform, num_states - 1).squeeze(-1)
    own = torch.randn(shape, generator=generator, dtype=torch.float64, device=device)
    other = torch.randint(num_states - 1, shape, generator=generator, device=device)
    return Trajectory(x0, other + (other >= x0), largest - own)
