"""The bound of text that is written block after block, each by a diffusion given those before it.

    -log p(x)  <=  sum_b  int_0^1 E f_t( x^b | x^1, ..., x^(b-1) ) dt

with f_t the integrand of the process's own bound (`platform_core.objective`). One call of the
network reads every text twice, noisy and clean, and computes all blocks at once: a noisy token sees
its own noisy block and the clean blocks before it. Blocks as long as the text give the bound of the
process; blocks of one token give the likelihood of an autoregressive network.

Source: BD3-LM, arXiv:2503.09573.
"""

import functools

import torch

from platform_core.backbone import Sighted
from platform_core.draws import Draws
from platform_core.model import Model
from platform_core.objective import Noised, ShortestNelbo
from platform_core.types import Batch, Hidden, Noise, Tokens, tensor
from platform_core.visibility import Visibility


class BlockNelbo(ShortestNelbo):
    """The bound of any diffusion process on each block of a text, given the blocks before it.

    Every block has its own noise level; levels are stratified over the batch and the blocks. The
    bound of few training steps has less variance if training leaves out the times at which blocks
    are almost clean or almost all noise; the bound itself is of all times.

    Args:
        block_size: tokens of a block; the last block of a text may be shorter.
        t_min: training draws times from [t_min, t_max]; the papers' for masks and blocks of 4 are
            0.45 to 0.95, for blocks of 16 0.3 to 0.8.
        t_max: the latest time of training; the bound ignores both.
    """

    requires = {**ShortestNelbo.requires, "backbone": Sighted}

    def __init__(
        self, model: Model, block_size: int = 16, t_min: float = 1e-3, t_max: float = 1.0
    ) -> None:
        super().__init__(model, t_min)
        if block_size < 1:
            raise ValueError(f"block_size is {block_size}; a block has at least 1 token")
        if not t_min < t_max <= 1:
            raise ValueError(
                f"t_max is {t_max:g}; it must be above t_min, {t_min:g}, and at most 1"
            )
        self.block_size, self.t_max = block_size, t_max

    def times(self, x0: Tokens, draws: Draws, t_min: float) -> Noise:
        """Times in [t_min, 1], the same within each block, `[batch, length]`."""
        texts, length = x0.shape
        t = draws.times(texts, t_min, parts=-(-length // self.block_size))
        return t.repeat_interleave(self.block_size, dim=1)[:, :length]

    def noised(self, x0: Tokens, draws: Draws) -> Noised:
        """The batch that training reads, noised at times in [t_min, t_max] of the schedule."""
        t = self.t_min + (self.t_max - self.t_min) * self.times(x0, draws, 0.0)
        return self._corrupted_at(t, self.schedule, x0, draws)

    def features(self, batch: Batch, noised: Noised) -> Hidden:
        """Features of the noisy tokens, each of which sees its block and the clean ones before."""
        noisy, clean = tensor(noised.inputs), batch.x0
        length = clean.shape[1]
        level = noised.alpha.expand(clean.shape)
        conditions = dict(batch.conditions)
        if "documents" in conditions:
            conditions["documents"] = conditions["documents"].repeat(1, 2)
        hidden = self.denoiser.encode(
            torch.cat((noisy, clean), dim=1),
            torch.cat((level, torch.ones_like(level)), dim=1),
            conditions,
            noisy_and_clean(length, self.block_size, clean.device),
        )
        return hidden[:, :length]


@functools.lru_cache(16)
def noisy_and_clean(length: int, block_size: int, device: torch.device) -> Visibility:
    """What each of `2 length` tokens sees, the noisy tokens of a text and then the clean ones.

    A noisy token sees the noisy ones of its block, and the clean ones of earlier blocks; a clean
    token sees the clean ones of its block and of earlier ones.
    """
    place = torch.arange(2 * length, device=device) % length
    block = place // block_size

    def sees(text: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        noisy = query < length
        own, earlier = block[query] == block[key], block[query] > block[key]
        return torch.where(key < length, noisy & own, earlier | (~noisy & own))

    return Visibility(sees, place[None])
