"""The process: a random walk on a graph of similar tokens, with a few jumps to any token.

    q(x_t | x_s) = K(alpha_t / alpha_s)[x_s, x_t],   K(kept) = exp(log(kept) L) = U kept^lambda U^T
    L = c (D - B),   B = (1 - share) A + share 1 1^T / V,   D = diagonal of the row sums of B

A are the rates of jumps between neighbours. The factor c makes the smallest eigenvalue lambda of L
above 0 equal to 1, so that alpha is what is left of the slowest change: tokens become their
neighbours first, and leave their neighbourhood later. If all tokens are neighbours of each other, K
is that of uniform noise.

Everything is computed by rows: a row of K is that of one token, and a law of tokens times K costs
two products with U. No array holds V x V numbers for each position.
"""

from functools import lru_cache
from typing import ClassVar, NamedTuple, final

import torch
from torch import Tensor

from platform_core import categorical
from platform_core.data.tokenizer.base import Tokenizer
from platform_core.process import Replacing, Thinned
from platform_core.types import LogProbs, Noise, Probs, Row, Selected, Tokens
from platform_kernel.similarity import alike, neighbourhood

LARGEST = 4096
"""Tokens of the largest vocabulary whose eigenvectors are computed, in about half a minute."""

ENTRIES = 2**22
"""Numbers in a chunk of rows that are drawn from at once."""

SMALLEST = 1e-300


class Walk(NamedTuple):
    """A random walk on tokens: its generator, and the eigenvectors of it."""

    rates: Tensor
    """Rates of jumps `[tokens, tokens]`, symmetric; rows sum to 0."""
    decays: Tensor
    """Eigenvalues of the negative generator, `[tokens]`: 0, then 1 and larger."""
    vectors: Tensor
    """Eigenvectors as columns, `[tokens, tokens]`."""

    @classmethod
    def along(cls, jumps: Tensor, share: float) -> "Walk":
        """The walk along symmetric rates of jumps, a share of which go to any token instead."""
        size = len(jumps)
        anywhere = torch.full_like(jumps, 1 / size)
        mixed = (1 - share) * jumps + share * anywhere
        rates = mixed - mixed.sum(-1).diag()
        decays, vectors = torch.linalg.eigh(-rates)
        least = decays[1]
        decays = (decays / least).clamp_min(0)
        decays[0] = 0.0  # rounding would let mass disappear
        vectors[:, 0] = size**-0.5
        return cls(rates / least, decays, vectors)

    def after(self, law: Probs, kept: Noise) -> Probs:
        """The law of tokens after the walk, float64.

        Args:
            law: before it, `[*batch, tokens]`.
            kept: alpha_t / alpha_s, `[*batch]`.
        """
        return self._decayed(law.double() @ self.vectors, kept).clamp_min(0)

    def before(self, law: Probs, kept: Noise) -> Probs:
        """The inverse of `after`; negative where the law is not one that `after` returns."""
        return self._decayed(law.double() @ self.vectors, 1 / kept)

    def rows(self, tokens: Tokens, kept: Noise) -> Probs:
        """Rows of K(kept), which are also its columns: `[*batch, tokens]`, float64."""
        return self._decayed(self.vectors[tokens], kept).clamp_min(0)

    def _decayed(self, parts: Tensor, kept: Noise) -> Tensor:
        return (parts * kept.double()[..., None] ** self.decays) @ self.vectors.T


@final
class Kernel(Replacing):
    """Noise that turns tokens into similar tokens first, and into any token in the end.

    Args:
        tokenizer: the run's tokenizer, by whose spelling tokens are alike.
        neighbours: number of tokens that count as similar to each token.
        share: share of jumps that go to any token instead of a neighbour, above 0, so that every
            token can become every other.

    Raises:
        ValueError: an option is out of range, or the vocabulary is too large.

    Source: D3PM, arXiv:2107.03006, appendix A.2.4, with spelling in place of embeddings.
    """

    all_changeable: ClassVar[bool] = True

    def __init__(
        self,
        vocab_size: int,
        tokenizer: Tokenizer | None = None,
        neighbours: int = 8,
        share: float = 0.05,
    ) -> None:
        super().__init__(vocab_size, num_states=vocab_size, time_conditioned=True)
        if neighbours < 1:
            raise ValueError(f"neighbours is {neighbours}; it must be at least 1, for example 8")
        if not 0 < share <= 1:
            raise ValueError(f"share is {share:g}; it must be above 0 and at most 1 (uniform)")
        if vocab_size > LARGEST:
            raise ValueError(
                f"the vocabulary has {vocab_size} tokens, and this process takes at most "
                f"{LARGEST}; choose a smaller tokenizer, for example --data.tokenizer character"
            )
        self.tokenizer, self.neighbours, self.share = tokenizer, neighbours, share
        self.walk = lru_cache(self._walk)

    def _walk(self, device: torch.device) -> Walk:
        jumps = neighbourhood(alike(self.vocab_size, self.tokenizer), self.neighbours)
        return Walk(*(it.to(device) for it in Walk.along(jumps, self.share)))

    def sample_prior(self, shape: tuple[int, ...], generator: torch.Generator) -> Tokens:
        """Tokens drawn uniformly: the walk is symmetric, so that all are equally likely in the
        end.
        """
        return torch.randint(self.num_states, shape, generator=generator, device=generator.device)

    def corrupt(self, x0: Tokens, alpha: Noise, generator: torch.Generator) -> Tokens:
        walk, rows = self.walk(x0.device), max(1, ENTRIES // self.num_states)
        chunks = (torch.split(it.flatten(), rows) for it in (x0, alpha.expand(x0.shape)))
        drawn = [
            categorical.draw(walk.rows(x, level), generator)
            for x, level in zip(*chunks, strict=True)
        ]
        return torch.cat(drawn).view(x0.shape)

    def changeable(self, x_t: Tokens) -> Selected:
        return torch.ones_like(x_t, dtype=torch.bool)

    def log_score(self, log_x0: LogProbs, x_t: Tokens, alpha: Noise) -> LogProbs:
        noisy = self.walk(x_t.device).after(log_x0.exp(), alpha.expand(x_t.shape))
        log_q = noisy.clamp_min(SMALLEST).log()
        return (log_q - log_q.gather(-1, x_t[..., None])).to(log_x0.dtype)

    def rates(self, x_t: Tokens, alpha: Noise, slope: Noise) -> Row:
        """-slope / alpha times the rates of the walk, whose rows are its columns."""
        return -(slope / alpha)[..., None] * self.walk(x_t.device).rates[x_t]

    def reverse(self, log_score: LogProbs, x_t: Tokens, alpha_s: Noise, alpha_t: Noise) -> Probs:
        """K(kept)[x_s, x_t] times what was before the score's law.

        That undoes noise, so errors of a learned score grow with the length of the step, by
        kept^-lambda; what becomes negative is clipped.
        """
        kept = (alpha_t / alpha_s).expand(x_t.shape)
        walk = self.walk(x_t.device)
        earlier = walk.before(log_score.exp(), kept).clamp_min(0)
        return (walk.rows(x_t, kept) * earlier).to(log_score.dtype)

    def posterior(self, log_x0: LogProbs, x_t: Tokens, alpha_s: Noise, alpha_t: Noise) -> Probs:
        """Bayes' rule: K(alpha_t / alpha_s)[x_s, x_t] q_s(x_s) / q_t(x_t)."""
        walk = self.walk(x_t.device)
        earlier = walk.after(log_x0.exp(), alpha_s.expand(x_t.shape))
        mass = walk.rows(x_t, (alpha_t / alpha_s).expand(x_t.shape)) * earlier
        return (mass / mass.sum(-1, keepdim=True)).to(log_x0.dtype)

    def thin(
        self, x_t: Tokens, alpha_s: Noise, alpha_t: Noise, *, generator: torch.Generator
    ) -> Thinned:
        """Every token is open: each may change under some law of the clean token."""
        return Thinned(self.changeable(x_t), alpha_s)

    def draw_open(
        self,
        log_x0: LogProbs,
        x_t: Tokens,
        alpha_s: Noise,
        alpha_t: Noise,
        *,
        generator: torch.Generator,
    ) -> Tokens:
        return categorical.draw(self.posterior(log_x0, x_t, alpha_s, alpha_t), generator)
