"""GIDD's process: tokens become other tokens first and masks last.

    q(x_t | x_0) = alpha 1{x_t = x_0} + n[x_t],   n[mask] = t / C,   n[token] = B w / (C V)

with t, C and w of `mixture` at the signal level alpha. A network that has seen wrong tokens can
mend its own; and the mask says where it need not.
"""

from typing import final

import torch

from platform_core.process import MovingPrior, Replacing
from platform_core.types import Noise, Tokens
from platform_gidd.mixture import Mixture


@final
class Gidd(MovingPrior, Replacing):
    """Noise of masks and uniform tokens, with the mask's id after the vocabulary.

    Args:
        p_uniform: share of uniform tokens in the text halfway to noise, in (0, 1). The paper has
            0.1 and 0.2.

    Raises:
        ValueError: the share is out of range.

    Source: GIDD, arXiv:2503.04482, the hybrid mixing distribution.
    """

    def __init__(self, vocab_size: int, p_uniform: float = 0.1) -> None:
        super().__init__(vocab_size, num_states=vocab_size + 1, time_conditioned=True)
        self.mask_id = vocab_size
        self.mixture = Mixture.of(p_uniform)

    def noise(self, tokens: Tokens, alpha: Noise) -> Noise:
        """T / C at the mask, B w / (C V) elsewhere."""
        t, rest = self.mixture.times(alpha)
        total = self.mixture.total(t, rest)
        token = (total - 1) / (total * self.vocab_size)
        return torch.where(tokens == self.mask_id, t / total, token)

    def noise_slope(self, tokens: Tokens, alpha: Noise) -> Noise:
        """-B (1 - 2t) / (2 w + B (1 - t)) in all on tokens; on the mask what is left of -1."""
        t, rest = self.mixture.times(alpha)
        scale = self.mixture.scale
        moved = scale * (rest - t) / (2 * (t * rest).sqrt() + scale * rest)
        return torch.where(tokens == self.mask_id, moved - 1, -moved / self.vocab_size)

    def sample_noise(
        self, shape: tuple[int, ...], alpha: Noise, generator: torch.Generator
    ) -> Tokens:
        """A mask with chance sqrt(t) / (sqrt(t) + B sqrt(1 - t)), else any token."""
        t, rest = self.mixture.times(alpha)
        share = t.sqrt() / (t.sqrt() + self.mixture.scale * rest.sqrt())
        level = torch.rand(shape, generator=generator, dtype=torch.float64, device=generator.device)
        tokens = torch.randint(self.vocab_size, shape, generator=generator, device=generator.device)
        return torch.where(level < share, self.mask_id, tokens)
