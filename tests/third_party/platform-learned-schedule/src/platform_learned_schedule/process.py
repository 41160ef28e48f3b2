"""Masks with a schedule for each token value.

    q(mask at t | v) = m_v = (1 - alpha_t)^{w_v},  w_v > 0 learned

The run's schedule alpha is the clock of all values. With p the law of a clean token given the other
noisy tokens, a mask says of its own token that it is v with probability

    mu_v = p_v m_v / sum_u p_u m_u

and becomes v at the rate r_v mu_v, r_v = -slope w_v / (1 - alpha). The bound's integrand at a mask
is then sum_v r_v mu_v - r_x - r_x log mu_x, which is what `platform_core.objective.Nelbo` computes.
"""

import math
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from platform_core import categorical
from platform_core.process import Masking, Thinned, log_one_hot
from platform_core.types import LogProbs, Noise, Probs, Row, Tokens

LEAST = 1e-30
"""Lowest signal level; its inverse is finite in float32."""

LOG_LEAST = -745.0
"""Logarithm of the lowest noise level: exp(-745) is the least number above 0."""


@final
class ByValue(Masking, nn.Module):
    """Noise hides tokens behind a mask, each token value at times of its own, which are learned.

    Args:
        power: geometric mean of the exponents. A factor of all of them is another clock, on which
            the bound does not depend, so it is not learned; but an estimate of the bound at random
            times has a finite variance only if all exponents are above 1.
        spread: exponents begin evenly (in their logarithm) from power / spread for the first token
            of the vocabulary to power * spread for the last; 1 begins as MDLM does.

    The network has to be told the time, because a mask among the other tokens says something about
    the token behind it, which is not the same at all times.

    Raises:
        ValueError: an option is out of range.

    Source: GenMD4, arXiv:2406.04329 (state-dependent masking), whose network predicts mu, not p.
    """

    def __init__(self, vocab_size: int, power: float = 3.0, spread: float = 1.0) -> None:
        if not (power > 0 and spread > 0):
            raise ValueError(f"power is {power:g} and spread {spread:g}; both must be above 0")
        nn.Module.__init__(self)
        super().__init__(vocab_size, num_states=vocab_size + 1, time_conditioned=True)
        self.mask_id, self.power = vocab_size, power
        places = torch.linspace(-1, 1, vocab_size, dtype=torch.float64)
        self.logs = nn.Parameter(places * math.log(spread))

    @property
    def exponents(self) -> Tensor:
        """w of every token of the vocabulary, `[vocab_size]`, float64."""
        return self.power * (self.logs - self.logs.mean()).exp()

    def log_masked(self, alpha: Noise) -> Tensor:
        """log m of every token value, `[*alpha, vocab_size]`, float64."""
        return self.exponents * log_noise(alpha)[..., None]

    def corrupt(self, x0: Tokens, alpha: Noise, generator: torch.Generator) -> Tokens:
        level = torch.rand(x0.shape, generator=generator, dtype=torch.float64, device=x0.device)
        return x0.masked_fill(level < (1 - alpha) ** self.exponents[x0], self.mask_id)

    def log_noised(self, x_t: Tokens, x0: Tokens, alpha: Noise) -> Noise:
        """log m at a mask, log(1 - m) at a token, with m of the clean token."""
        masked = self.exponents[x0] * log_noise(alpha)
        return torch.where(x_t == self.mask_id, masked, (-masked.expm1()).log())

    def log_score(self, log_x0: LogProbs, x_t: Tokens, alpha: Noise) -> LogProbs:
        """log q[y] - log q[x_t] with q[v] = p_v (1 - m_v), and the rest of the mass on the mask."""
        masked, size = self.log_masked(alpha), self.vocab_size
        seen = log_x0[..., :size] + (-masked.expm1()).log().to(log_x0.dtype)
        hidden = torch.cat(
            (log_x0[..., :size] + masked.to(log_x0.dtype), log_x0[..., size:]), dim=-1
        )
        log_q = torch.cat((seen, hidden.logsumexp(-1, keepdim=True)), dim=-1)
        return log_q - log_q.gather(-1, x_t[..., None])

    def rates(self, x_t: Tokens, alpha: Noise, slope: Noise) -> Row:
        """-slope w_v m_v / ((1 - alpha)(1 - m_v)) to a mask from each token; 0 to a token."""
        masked = self.log_masked(alpha)
        rates = self.exponents * masked.exp() / -masked.expm1() * (-slope / (1 - alpha))[..., None]
        return functional.pad(rates, (0, 1)) * (x_t == self.mask_id)[..., None]

    def reverse(self, log_score: LogProbs, x_t: Tokens, alpha_s: Noise, alpha_t: Noise) -> Probs:
        """A mask becomes v with chance q_t(v) / q_t(mask) (m_t - m_s) / (1 - m_t).

        It stays with the rest, which is clipped at 0 if a learned score makes it negative.
        """
        masked = self.log_masked(alpha_t)
        revealed = masked.exp() * (1 - self._still(alpha_s, alpha_t)) / -masked.expm1()
        moved = log_score[..., : self.vocab_size].exp() * revealed.to(log_score.dtype)
        stays = (1 - moved.sum(-1, keepdim=True)).clamp_min(0)
        return self._at_masks(torch.cat((moved, stays), dim=-1), x_t)

    def posterior(self, log_x0: LogProbs, x_t: Tokens, alpha_s: Noise, alpha_t: Noise) -> Probs:
        """A mask becomes v with mu_v (1 - m_s / m_t) of token value v."""
        mass = self._mass(log_x0, alpha_s, alpha_t, least=0.0)
        return self._at_masks(mass / mass.sum(-1, keepdim=True), x_t)

    def thin(
        self, x_t: Tokens, alpha_s: Noise, alpha_t: Noise, *, generator: torch.Generator
    ) -> Thinned:
        """Open each mask with the chance of the token value that is revealed the soonest."""
        chance = 1 - self._still(alpha_s, alpha_t).amin(-1)
        level = torch.rand(x_t.shape, generator=generator, dtype=torch.float64, device=x_t.device)
        return Thinned(self.changeable(x_t) & (level < chance), alpha_s)

    def draw_open(
        self,
        log_x0: LogProbs,
        x_t: Tokens,
        alpha_s: Noise,
        alpha_t: Noise,
        *,
        generator: torch.Generator,
    ) -> Tokens:
        least = self._still(alpha_s, alpha_t).amin(-1, keepdim=True)
        return categorical.draw(self._mass(log_x0, alpha_s, alpha_t, least=least), generator)

    def _still(self, alpha_s: Noise, alpha_t: Noise) -> Tensor:
        """m_s / m_t: the chance that a mask at t was one at s, of every token value."""
        return ((1 - alpha_s) / (1 - alpha_t)).double()[..., None] ** self.exponents

    def _mass(
        self, log_x0: LogProbs, alpha_s: Noise, alpha_t: Noise, *, least: Tensor | float
    ) -> Probs:
        """Mass of every state at s behind a mask at t, of masks without their share `least`."""
        still, size = self._still(alpha_s, alpha_t), self.vocab_size
        hidden = log_x0[..., :size].double().exp() * self.log_masked(alpha_t).exp()
        stays = (hidden * (still - least)).sum(-1, keepdim=True)
        stays = stays + log_x0[..., size:].double().exp() * (1 - least)
        return torch.cat((hidden * (1 - still), stays), dim=-1).to(log_x0.dtype)

    def _at_masks(self, law: Probs, x_t: Tokens) -> Probs:
        """A law at masks, and the token itself at tokens."""
        itself = log_one_hot(x_t, self.num_states, law.dtype).exp()
        return torch.where((x_t == self.mask_id)[..., None], law, itself)


def log_noise(alpha: Noise) -> Noise:
    """log(1 - alpha), a little away from both ends, where derivatives are not finite."""
    return torch.log1p(-alpha.double().clamp_min(LEAST)).clamp_min(LOG_LEAST)
