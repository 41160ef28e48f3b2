"""Processes: how clean tokens are noised, and what follows about the way back.

A process keeps a token with probability alpha and else redraws it from a prior pi:

    q(x_t | x_0) = alpha_t 1{x_t = x_0} + (1 - alpha_t) pi[x_t]

`Interpolating` derives everything from pi alone; `Absorbing` (pi is the mask) and `Uniform` only
name their pi. Families subclass these two to carry their own defaults, or `AbsorbingOrUniform` to
leave the choice to an option. Objectives use `corrupt`, `log_score` and `rate`; samplers the
posterior.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from platform_core import categorical
from platform_core.types import LogProbs, Noise, Probs, Selected, Tokens

LOG_ZERO = -1e6
"""Stands for log 0 where gradients or products must stay finite: exp(-1e6) is 0 in every float
format.
"""


class Process:
    """What a model does to text before the network has to undo it.

    `causal` and `time_conditioned` are facts the backbone is built with: whether a position may see
    only those to its left, and whether the network is told the noise level.
    """

    causal: ClassVar[bool] = False
    requires: ClassVar[Mapping[str, type]] = {}

    def __init__(self, vocab_size: int, *, num_states: int, time_conditioned: bool) -> None:
        self.vocab_size = vocab_size
        self.num_states = num_states
        self.time_conditioned = time_conditioned


class Diffusion(Process, ABC):
    """A process with noise: a corruption of every level and the reverse steps that undo it."""

    @abstractmethod
    def sample_prior(self, shape: tuple[int, ...], generator: torch.Generator) -> Tokens:
        """Pure noise: tokens at t = 1, on the generator's device."""

    @abstractmethod
    def corrupt(self, x0: Tokens, alpha: Noise, generator: torch.Generator) -> Tokens:
        """Noisy tokens x_t drawn from q(x_t | x_0) at signal level alpha."""

    @abstractmethod
    def changeable(self, x_t: Tokens) -> Selected:
        """Positions whose token a reverse step may change; the bound is 0 at all others."""

    @abstractmethod
    def log_score(self, log_x0: LogProbs, x_t: Tokens, alpha: Noise) -> LogProbs:
        """log q_t(y) / q_t(x_t) for every state y, when the clean token has the law exp(log_x0)."""

    @abstractmethod
    def rate(self, x_t: Tokens, alpha: Noise, slope: Noise) -> Noise:
        """Rate at which the forward process jumps to x_t from any other state, per unit of time."""

    @abstractmethod
    def reverse(self, log_score: LogProbs, x_t: Tokens, alpha_s: Noise, alpha_t: Noise) -> Probs:
        """Law of the earlier tokens x_s given x_t, from a score."""

    @abstractmethod
    def posterior(self, log_x0: LogProbs, x_t: Tokens, alpha_s: Noise, alpha_t: Noise) -> Probs:
        """Law of the earlier tokens x_s given x_t, from a law of the clean token."""

    @abstractmethod
    def thin(
        self, x_t: Tokens, alpha_s: Noise, alpha_t: Noise, *, generator: torch.Generator
    ) -> "Thinned":
        """The first half of a draw from `posterior`: what needs no law of the clean token."""

    @abstractmethod
    def draw_open(
        self,
        log_x0: LogProbs,
        x_t: Tokens,
        alpha_s: Noise,
        alpha_t: Noise,
        *,
        generator: torch.Generator,
    ) -> Tokens:
        """The second half, for tokens that `thin` left open, at its `alpha_s`.

        At `alpha_s` = 1 `thin` opens all that can change, so that this alone is the whole draw.
        """


class Thinned(NamedTuple):
    """A reverse step before the network is asked: which tokens are still open."""

    open: Selected
    """Tokens to draw; all others stay, whatever the law of the clean token is."""
    alpha_s: Noise
    """Signal level to draw them at, which may be above the step's own."""


class PosteriorMixture(NamedTuple):
    """Weights, summing to 1, with which an earlier token is x_t itself, a draw from the denoiser's
    law, or a draw from the prior.
    """

    stay: Noise
    denoiser: Noise
    prior: Noise


class Interpolating(Diffusion):
    """All of a diffusion from one abstract prior that does not change with time."""

    @abstractmethod
    def prior(self, tokens: Tokens) -> Noise:
        """Prior probability of each of the given tokens."""

    def corrupt(self, x0: Tokens, alpha: Noise, generator: torch.Generator) -> Tokens:
        """Keeps each token with probability alpha, else redraws it from the prior."""
        level = torch.rand(x0.shape, generator=generator, dtype=torch.float64, device=x0.device)
        return torch.where(level < alpha, x0, self.sample_prior(tuple(x0.shape), generator))

    def changeable(self, x_t: Tokens) -> Selected:
        """Positions that noise can have reached: where the prior is positive."""
        return self.prior(x_t) > 0

    def log_score(self, log_x0: LogProbs, x_t: Tokens, alpha: Noise) -> LogProbs:
        """log q[y] - log q[x_t] with q = alpha x_0 + (1 - alpha) pi."""
        log_q = self._log_marginal(log_x0, alpha)
        return log_q - log_q.gather(-1, x_t[..., None])

    def rate(self, x_t: Tokens, alpha: Noise, slope: Noise) -> Noise:
        """-(slope / alpha) pi[x_t]: the same from every other state."""
        return -(slope / alpha) * self.prior(x_t)

    def reverse(self, log_score: LogProbs, x_t: Tokens, alpha_s: Noise, alpha_t: Noise) -> Probs:
        """The analytic step; exact when the score is.

            q(x_s | x_t) = q(x_t | x_s) q(x_s) / q(x_t),  1 >= alpha_s >= alpha_t > 0

        A learned score may be inconsistent: negative mass is clipped, and rows need not sum to 1.

        Source: Lou et al. 2024, arXiv:2310.16834; with a law of the clean token, the posterior of
        MDLM and DUO.
        """
        kept = alpha_t / alpha_s
        earlier = self.staggered_score(log_score.exp(), kept)
        return self._reach(x_t, kept, earlier) * earlier.clamp_min(0)

    def staggered_score(self, score: Probs, kept: Noise) -> Probs:
        """q_s(y) / q_t(x_t) at an earlier level: what one factor of the analytic step is.

            (score[y] - (1 - kept) pi[y] sum(score)) / kept,  kept = alpha_t / alpha_s > 0

        Negative where a learned score is not that of any law. With kept = alpha_t, it is the law of
        the clean token that the score implies, up to a factor.
        """
        moved = _like(score, 1 - kept)[..., None] * self._prior_row(score)
        return (score - moved * score.sum(-1, keepdim=True)) / _like(score, kept)[..., None]

    def posterior(self, log_x0: LogProbs, x_t: Tokens, alpha_s: Noise, alpha_t: Noise) -> Probs:
        """Bayes' rule with the clean token's law put in; also at alpha_t = 0.

        q(x_s | x_t) = q(x_t | x_s) q(x_s) / q(x_t),  q(x_s) = alpha_s x_0 + (1 - alpha_s) pi
        """
        x0 = log_x0.exp()
        signal, noise = _like(x0, alpha_s)[..., None], _like(x0, 1 - alpha_s)[..., None]
        earlier = signal * x0 + noise * self._prior_row(x0)
        mass = self._reach(x_t, alpha_t / alpha_s, x0) * earlier
        return mass / mass.sum(-1, keepdim=True)

    def thin(
        self, x_t: Tokens, alpha_s: Noise, alpha_t: Noise, *, generator: torch.Generator
    ) -> Thinned:
        """Opens each token with the greatest chance that a law of the clean token redraws it with.

            c = (alpha_s - alpha_t) / ((1 - alpha_t) alpha_s)      with z = x_t redrawn from q_s
            c = (alpha_s - alpha_t) / (1 - alpha_t)                where pi[z] = 1, from x_0 alone

        which is what the parts of `posterior_mixture` other than stay come to at x_0[z] = 0. Where
        pi[z] = 1, a redraw from the prior changes nothing, so that part is left out.
        """
        level = torch.where(self.prior(x_t) == 1, 1.0, alpha_s)
        chance = (alpha_s - alpha_t) / ((1 - alpha_t) * level)
        uniform = torch.rand(x_t.shape, generator=generator, dtype=torch.float64, device=x_t.device)
        return Thinned(self.changeable(x_t) & (uniform < chance), level)

    def draw_open(
        self,
        log_x0: LogProbs,
        x_t: Tokens,
        alpha_s: Noise,
        alpha_t: Noise,
        *,
        generator: torch.Generator,
    ) -> Tokens:
        """Redraws from q_s = alpha_s x_0 + (1 - alpha_s) pi, less often the likelier x_t is itself.

            chance of a redraw = (1 - alpha_t) pi[z] / ((1 - alpha_t) pi[z] + alpha_t x_0[z])

        so that this chance times c of `thin` is that of the posterior.
        """
        redrawn = self.posterior_mixture(log_x0, x_t, torch.ones_like(alpha_s), alpha_t).denoiser
        parts = PosteriorMixture(1 - redrawn, redrawn * alpha_s, redrawn * (1 - alpha_s))
        return self._draw_part(parts, log_x0, x_t, generator)

    def posterior_mixture(
        self, log_x0: LogProbs, x_t: Tokens, alpha_s: Noise, alpha_t: Noise
    ) -> PosteriorMixture:
        """The posterior, in parts that need the denoiser's law at x_t alone.

            stay:      alpha_t/alpha_s (alpha_s x_0[z] + (1 - alpha_s) pi[z])     z = x_t
            denoiser:  (1 - alpha_t/alpha_s) pi[z] alpha_s
            prior:     (1 - alpha_t/alpha_s) pi[z] (1 - alpha_s)

        each over their sum.
        """
        kept, here = alpha_t / alpha_s, self.prior(x_t)
        x0_here = log_x0.gather(-1, x_t[..., None]).squeeze(-1).double().exp()
        stay = kept * (alpha_s * x0_here + (1 - alpha_s) * here)
        denoiser, prior = (1 - kept) * here * alpha_s, (1 - kept) * here * (1 - alpha_s)
        total = stay + denoiser + prior
        return PosteriorMixture(stay / total, denoiser / total, prior / total)

    def _draw_part(
        self, parts: PosteriorMixture, log_x0: LogProbs, x_t: Tokens, generator: torch.Generator
    ) -> Tokens:
        """One uniform number per row picks a part; only the rows that fall to the denoiser need a
        categorical draw.
        """
        level = torch.rand(x_t.shape, generator=generator, dtype=torch.float64, device=x_t.device)
        from_denoiser = level < parts.denoiser
        from_prior = ~from_denoiser & (level < parts.denoiser + parts.prior)
        x_s = torch.where(from_prior, self.sample_prior(tuple(x_t.shape), generator), x_t)
        x_s[from_denoiser] = categorical.draw(log_x0[from_denoiser].exp_(), generator)
        return x_s

    def _log_marginal(self, log_x0: LogProbs, alpha: Noise) -> LogProbs:
        signal = log_x0 + _like(log_x0, alpha.log())[..., None]
        noise = self._prior_row(log_x0).log() + _like(log_x0, (1 - alpha).log())[..., None]
        return torch.logaddexp(signal, noise)

    def _prior_row(self, like: Tensor) -> Tensor:
        return _like(like, self.prior(torch.arange(self.num_states, device=like.device)))

    def _reach(self, x_t: Tokens, kept: Noise, like: Probs) -> Probs:
        """q(x_t | x_s) for every x_s: kept 1{x_s = x_t} + (1 - kept) pi[x_t]."""
        jumped = _like(like, (1 - kept) * self.prior(x_t))[..., None].expand_as(like).clone()
        stayed = _like(like, kept)[..., None].expand(*x_t.shape, 1)
        return jumped.scatter_add_(-1, x_t[..., None], stayed)


class Absorbing(Interpolating):
    """Noise hides tokens behind a mask, whose id comes after the vocabulary.

    Args:
        time_conditioned: whether the network is told the noise level; it does not need to be,
            because the share of masks in the text says it already.

    Source: D3PM, arXiv:2107.03006, section 3.1; MDLM, arXiv:2406.07524.
    """

    def __init__(self, vocab_size: int, time_conditioned: bool = False) -> None:
        super().__init__(vocab_size, num_states=vocab_size + 1, time_conditioned=time_conditioned)
        self.mask_id = vocab_size

    def prior(self, tokens: Tokens) -> Noise:
        """1 at the mask, 0 elsewhere."""
        return (tokens == self.mask_id).double()

    def sample_prior(self, shape: tuple[int, ...], generator: torch.Generator) -> Tokens:
        """Masks only."""
        return torch.full(shape, self.mask_id, dtype=torch.long, device=generator.device)


class Uniform(Interpolating):
    """Noise replaces tokens by any of the vocabulary; the network must be told how noisy its input
    is.

    Source: D3PM, arXiv:2107.03006, section 3.1; UDLM, arXiv:2412.10193; DUO, arXiv:2506.10892.
    """

    def __init__(self, vocab_size: int) -> None:
        super().__init__(vocab_size, num_states=vocab_size, time_conditioned=True)

    def prior(self, tokens: Tokens) -> Noise:
        """1 / num_states for every token."""
        return torch.full(
            tokens.shape, 1 / self.num_states, dtype=torch.float64, device=tokens.device
        )

    def sample_prior(self, shape: tuple[int, ...], generator: torch.Generator) -> Tokens:
        """Every token equally often."""
        return torch.randint(self.num_states, shape, generator=generator, device=generator.device)


States = Literal["absorbing", "uniform"]
"""What noise turns tokens into: a mask, or any of the vocabulary."""


class AbsorbingOrUniform(Interpolating):
    """Noise of the kind that an option names, for a network that is told the noise level.

    Every object is an `Absorbing` or a `Uniform` and goes wherever they do, as every `pathlib.Path`
    is a PosixPath or a WindowsPath. A family derives three classes:

        class Family(AbsorbingOrUniform)              the one that users name
        class AbsorbingFamily(Family, Absorbing)
        class UniformFamily(Family, Uniform)

    Args:
        states: absorbing (noise hides tokens behind a mask) or uniform (noise replaces them by any
            of the vocabulary).
    """

    def __new__(cls, vocab_size: int, states: States = "absorbing") -> "AbsorbingOrUniform":
        """An object of the kind."""
        kinds = cls.kinds()
        return super().__new__(kinds[f"states {states}"] if kinds else cls)

    def __init__(self, vocab_size: int, states: States = "absorbing") -> None:
        super().__init__(vocab_size)  # type: ignore[call-arg]  # next in line: the kind's
        self.time_conditioned = True

    def __getnewargs__(self) -> tuple[int]:
        """What copies are made from."""
        return (self.vocab_size,)

    @classmethod
    def kinds(cls) -> Mapping[str, type["AbsorbingOrUniform"]]:
        """The classes of a family's objects, by the option that asks for each; of those, none."""
        noises: Mapping[States, type] = {"absorbing": Absorbing, "uniform": Uniform}
        return {
            f"states {states}": kind
            for states, noise in noises.items()
            for kind in cls.__subclasses__()
            if issubclass(kind, noise)
        }


def log_one_hot(tokens: Tokens, num_states: int, dtype: torch.dtype = torch.float32) -> LogProbs:
    """Log-probabilities of a certain token: 0 there, `LOG_ZERO` elsewhere."""
    row = torch.full((*tokens.shape, num_states), LOG_ZERO, dtype=dtype, device=tokens.device)
    return row.scatter_(-1, tokens[..., None], 0.0)


def _like(other: Tensor, value: Tensor) -> Tensor:
    """Noise levels are float64; beside a row of states they take its dtype, or the whole row would
    be promoted.
    """
    return value.to(other.dtype)
