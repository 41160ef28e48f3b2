"""The process: noise replaces tokens by draws from a prior that falls with the token id.

    q(x_t | x_0) = alpha_t 1{x_t = x_0} + (1 - alpha_t) pi[x_t],   pi[v] ~ (v + 1)^-tilt

`Interpolating` derives the score, the reverse step and the bound from `prior` and `sample_prior`.
For a prior that changes with time, derive from `platform_core.process.MovingPrior`; for masks, from
`Absorbing`.
"""

import math
from typing import final

import torch

from platform_core.process import Interpolating
from platform_core.types import Noise, Tokens


@final
class NewPart(Interpolating):
    """Noise that replaces tokens by random tokens of the vocabulary, small ids more often.

    Args:
        tilt: 0 is uniform noise; at 1 the prior is proportional to 1 / (id + 1). At least 0.

    Raises:
        ValueError: tilt is below 0.
    """

    def __init__(self, vocab_size: int, tilt: float = 1.0) -> None:
        super().__init__(vocab_size, num_states=vocab_size, time_conditioned=True)
        if not 0 <= tilt < math.inf:
            raise ValueError(f"tilt is {tilt:g}; it must be at least 0, for example 1")
        self.tilt = tilt
        self.total = math.fsum((token + 1) ** -tilt for token in range(vocab_size))

    def prior(self, tokens: Tokens) -> Noise:
        """(token + 1)^-tilt, divided by its sum over the vocabulary."""
        return (tokens + 1).double() ** -self.tilt / self.total

    def sample_prior(self, shape: tuple[int, ...], generator: torch.Generator) -> Tokens:
        """Draw tokens by inverting the cumulative sum of the prior."""
        device = generator.device
        cumulative = self.prior(torch.arange(self.num_states, device=device)).cumsum(-1)
        uniform = torch.rand(shape, generator=generator, dtype=torch.float64, device=device)
        place = torch.searchsorted(cumulative, uniform, right=True)
        return place.clamp_max(self.num_states - 1)
