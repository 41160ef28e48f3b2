"""The path of one token through all noise levels of the Gaussian diffusion, exactly and in O(1).

    x_t = argmax_j ( mu_t 1{j = x} + eps_j ),   the same eps for every t

Apart from x itself, only the largest of the other K - 1 noises can win, at whatever time: a path
takes two values, and as t falls and mu rises it goes from the other to x once and for good.

    M = max_{j != x} eps_j,  e = eps_x,  o = argmax_{j != x} eps_j;   x_t = x if mu_t + e > M else o

So three numbers are drawn for a token, and no noise of the width of the vocabulary. Used by the
objective `discrete-consistency`.
"""

from typing import NamedTuple

import torch

from platform_core.types import Noise, Tokens
from platform_duo.relaxation import largest_normals


class Trajectory(NamedTuple):
    """The two values of each token, and the signal that it takes to be itself."""

    clean: Tokens
    other: Tokens
    needed: Noise
    """M - e, float64."""

    def at(self, mu: Noise) -> Tokens:
        """The tokens at signal over noise mu."""
        return torch.where(mu > self.needed, self.clean, self.other)


def draw_trajectory(x0: Tokens, num_states: int, generator: torch.Generator) -> Trajectory:
    """One path for each token; at every mu it has the law of uniform noise at alpha = T(mu)."""
    shape, device = x0.shape, x0.device
    uniform = torch.rand((*shape, 1), generator=generator, dtype=torch.float64, device=device)
    largest = largest_normals(uniform, num_states - 1).squeeze(-1)
    own = torch.randn(shape, generator=generator, dtype=torch.float64, device=device)
    other = torch.randint(num_states - 1, shape, generator=generator, device=device)
    return Trajectory(x0, other + (other >= x0), largest - own)
