"""The bound of text that is written block after block, each by a diffusion given those before it.

    -log p(x)  <=  sum_b  int_0^1 E f_t( x^b | x^1, ..., x^(b-1) ) dt

with f_t the integrand of the process's own bound (`platform_core.objective`). One call of the
network reads every text twice, noisy and clean, and computes all blocks at once: a noisy token sees
its own noisy block and the clean blocks before it. Blocks as long as the text give the bound of the
process; blocks of one token give the likelihood of an autoregressive network.

Source: BD3-LM, arXiv:2503.09573.
"""

import functools
import math
from collections.abc import Mapping

import torch

from platform_core.backbone import Sighted
from platform_core.draws import Draws
from platform_core.model import Model
from platform_core.objective import Following, Loss, Noised, ShortestNelbo
from platform_core.types import Batch, Hidden, Noise, Tokens, tensor
from platform_core.visibility import Visibility

PARTS = 20
"""Even parts of the times in which the search keeps apart how losses vary."""
KEPT = 0.9
"""Share of what earlier searches found that counts in the next."""


class BlockNelbo(ShortestNelbo, Following):
    """The bound of any diffusion process on each block of a text, given the blocks before it.

    Every block has its own noise level; levels are stratified over the batch and the blocks. The
    gradient varies less if training leaves out times at which blocks are almost clean or almost all
    noise; the bound itself is of all times.

    Args:
        block_size: tokens of a block; the last block of a text may be shorter.
        t_min: training draws times from [t_min, t_max]; the papers' for masks and blocks of 4 are
            0.45 to 0.95, for blocks of 16 0.3 to 0.8.
        t_max: the latest time of training; the bound ignores both.
        search_every: after every so many updates, look again for the half of all times at which the
            loss of a block varies least, and train on these; 0 keeps t_min and t_max. A search
            costs the network one more call of the batch, without a gradient.
    """

    requires = {**ShortestNelbo.requires, "backbone": Sighted}

    def __init__(
        self,
        model: Model,
        block_size: int = 16,
        t_min: float = 1e-3,
        t_max: float = 1.0,
        search_every: int = 0,
    ) -> None:
        super().__init__(model, t_min)
        if block_size < 1:
            raise ValueError(f"block_size is {block_size}; a block has at least 1 token")
        if not t_min < t_max <= 1:
            raise ValueError(
                f"t_max is {t_max:g}; it must be above t_min, {t_min:g}, and at most 1"
            )
        if search_every < 0:
            raise ValueError(f"search_every is {search_every}; it is at least 0, which never looks")
        self.block_size, self.search_every = block_size, search_every
        self.interval: torch.Tensor
        self.moments: torch.Tensor
        self.register_buffer("interval", torch.tensor([t_min, t_max], dtype=torch.float64))
        self.register_buffer("moments", torch.zeros(PARTS, 3, dtype=torch.float64))
        self._found = torch.zeros(PARTS, 3, dtype=torch.float64)

    def times(self, x0: Tokens, draws: Draws, t_min: float) -> Noise:
        """Times in [t_min, 1], the same within each block, `[batch, length]`."""
        texts, length = x0.shape
        t = draws.times(texts, t_min, parts=-(-length // self.block_size))
        return t.repeat_interleave(self.block_size, dim=1)[:, :length]

    def noised(self, x0: Tokens, draws: Draws) -> Noised:
        """The batch that training reads, noised at times in [t_min, t_max] of the schedule."""
        first, last = self.interval.to(x0.device)
        t = first + (last - first) * self.times(x0, draws, 0.0)
        return self._corrupted_at(t, self.schedule, x0, draws)

    def forward(self, batch: Batch, draws: Draws) -> Loss:
        """The integrand at the times of training; some calls also look at all times."""
        loss = super().forward(batch, draws)
        if self.search_every and draws.step % self.search_every == 0:
            self._look(batch, draws)
        return loss

    @torch.no_grad()
    def after_update(self, step: int, average: Mapping[str, torch.Tensor]) -> None:
        """Choose the interval of times anew, if this update looked at all times."""
        if not self._found.any():
            return
        found, self._found = self._found.to(self.moments.device), torch.zeros_like(self._found)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(found)
        self.moments.mul_(KEPT).add_(found)
        self.interval.copy_(least_varying(self.moments, self.t_min))

    @torch.no_grad()
    def _look(self, batch: Batch, draws: Draws) -> None:
        """Add the losses of blocks at all times to the moments of their part of the times."""
        t = self.times(batch.x0, draws, 0.0)
        noised = self._corrupted_at(t, self.schedule, batch.x0, draws)
        nats = self._by_block(self.integrand(batch, noised).per_token.double())
        counted = self._by_block(batch.mask.double())
        part = (t[:, :: self.block_size] * PARTS).long().clamp_max(PARTS - 1)[counted > 0]
        mean = (nats / counted)[counted > 0]
        values = torch.stack((torch.ones_like(mean), mean, mean.square()), dim=-1)
        self._found = self._found.to(values.device).index_add(0, part, values)

    def _by_block(self, values: torch.Tensor) -> torch.Tensor:
        """Sums over each block, `[batch, blocks]`."""
        lacking = -values.shape[1] % self.block_size
        padded = torch.nn.functional.pad(values, (0, lacking))
        return padded.view(len(values), -1, self.block_size).sum(-1)

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


def least_varying(moments: torch.Tensor, t_min: float) -> torch.Tensor:
    """The half of the times, first and last, over which a loss varies least.

    Args:
        moments: number, sum and sum of squares of its values in each of `PARTS` even parts of the
            times, `[PARTS, 3]`; halves without a value in some part are left out.
        t_min: the earliest time.
    """
    half = PARTS // 2
    means = moments[:, 1:] / moments[:, :1]  # NaN where a part has no value
    best, least = (t_min, 1.0), math.inf
    for first in range(PARTS - half + 1):
        mean, square = means[first : first + half].mean(0).tolist()
        if square - mean**2 < least:
            best, least = (max(t_min, first / PARTS), (first + half) / PARTS), square - mean**2
    return torch.tensor(best, dtype=torch.float64)


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
