"""Processes: how clean tokens are noised, and the reverse steps that follow.

A diffusion process keeps a token with probability alpha and otherwise redraws it from a prior pi:

    q(x_t | x_0) = alpha_t 1{x_t = x_0} + n_t[x_t],  n_t = (1 - alpha_t) pi

`Mixing` derives everything from the mass n_t of the noise. `Interpolating` has one pi for all
levels; its subclasses `Absorbing` (pi is the mask) and `Uniform` define only pi. Families subclass
these two to carry their own defaults, or `AbsorbingOrUniform` to leave the choice to an option.
`MovingPrior` is for a pi that changes with the level. `Masking` says that tokens become masks and
nothing else, `Replacing` that they become other tokens. Objectives use `corrupt`, `log_score`,
`rates` and, if the noise has weights, `log_noised`; samplers use the posterior.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from platform_core import categorical
from platform_core.rows import Places, is_static
from platform_core.types import LogProbs, Noise, Probs, Row, Selected, Tokens

LOG_ZERO = -1e6
"""Stands for log 0 where gradients or products must stay finite: exp(-1e6) is 0 in every float
format.
"""


class Process:
    """A corruption of text that the network learns to undo.

    The backbone is built with `causal`, whether a position sees only positions to its left, and
    `time_conditioned`, whether the network is told the noise level.
    """

    causal: ClassVar[bool] = False
    requires: ClassVar[Mapping[str, type]] = {}

    def __init__(self, vocab_size: int, *, num_states: int, time_conditioned: bool) -> None:
        self.vocab_size = vocab_size
        self.num_states = num_states
        self.time_conditioned = time_conditioned


class Diffusion(Process, ABC):
    """A process with noise: a corruption at every noise level, and reverse steps that undo it.

    `all_changeable` says that `changeable` is true of every token, so that nobody need look.
    """

    all_changeable: ClassVar[bool] = False

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

    def log_noised(self, x_t: Tokens, x0: Tokens, alpha: Noise) -> Noise:
        """log q(x_t | x_0) of each token, float64, for x_t that noise can reach from x_0.

        This follows from the score, in a row of all states for each token; a process may know a way
        without the rows.
        """
        certain = log_one_hot(x0, self.num_states, torch.float64)
        return -self.log_score(certain, x_t, alpha).logsumexp(-1)

    @abstractmethod
    def rates(self, x_t: Tokens, alpha: Noise, slope: Noise) -> Row:
        """Rate at which the forward process jumps to x_t from each state, per unit of time.

        One entry for each origin, or one for all if the rate is the same from all of them; the
        entry of x_t itself is not read.
        """

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
        """The first half of a draw from `posterior`, which needs no law of the clean token."""

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
        """The second half of a draw from `posterior`: draw the tokens that `thin` left open.

        `alpha_s` is the level that `thin` returned. For a step to `alpha_s` = 1, `thin` opens all
        positions that can change, so that this method alone is the whole draw.
        """


class Masking(Diffusion, ABC):
    """A diffusion under which noise hides tokens behind a mask and does nothing else: a token of
    noisy text that is no mask is the clean one.

    `Absorbing` hides all tokens with the same chance. Subclasses set `mask_id`, the state of the
    mask.
    """

    mask_id: int

    def sample_prior(self, shape: tuple[int, ...], generator: torch.Generator) -> Tokens:
        """Masks alone."""
        return torch.full(shape, self.mask_id, dtype=torch.long, device=generator.device)

    def changeable(self, x_t: Tokens) -> Selected:
        """Where the masks are."""
        return x_t == self.mask_id


class Replacing(Diffusion, ABC):
    """A diffusion under which noisy text has tokens in wrong places, not only masks.

    A network that is trained on it learns of each token how likely it is. A process says so by
    deriving from this class; parts that ask a network about tokens that it sees require it.
    """


class Thinned(NamedTuple):
    """A reverse step before the network call: the tokens that are still open."""

    open: Selected
    """Positions to draw; all others keep their tokens, whatever the law of the clean token is."""
    alpha_s: Noise
    """Signal level to draw the open tokens at, which may be above the step's own."""


class PosteriorMixture(NamedTuple):
    """Weights, summing to 1, with which an earlier token is x_t itself, a draw from the denoiser's
    law, or a draw from the prior.
    """

    stay: Noise
    denoiser: Noise
    prior: Noise


class Mixing(Diffusion):
    """A diffusion that is defined by the mass of noise on each state at each signal level.

        q(x_t | x_0) = alpha_t 1{x_t = x_0} + n_t[x_t],                sum of n_t = 1 - alpha_t
        q(x_t | x_s) = kept 1{x_t = x_s} + n_{t|s}[x_t],               kept = alpha_t / alpha_s
        n_{t|s}      = n_t - kept n_s >= 0

    Since alpha falls with time, n is written as a function of alpha, which holds for any schedule.
    """

    @abstractmethod
    def rate(self, x_t: Tokens, alpha: Noise, slope: Noise) -> Noise:
        """Rate at which the forward process jumps to x_t, from any other state alike, per unit of
        time.
        """

    def rates(self, x_t: Tokens, alpha: Noise, slope: Noise) -> Row:
        """`rate`, which is the same from every other state, as one entry for all."""
        return self.rate(x_t, alpha, slope)[..., None]

    @abstractmethod
    def noise(self, tokens: Tokens, alpha: Noise) -> Noise:
        """n[token], the mass of noise on each of the given tokens, float64."""

    @abstractmethod
    def added(self, tokens: Tokens, alpha_s: Noise, alpha_t: Noise) -> Noise:
        """n_{t|s}[token], the mass that noise adds from alpha_s to alpha_t <= alpha_s, float64."""

    @abstractmethod
    def sample_noise(
        self, shape: tuple[int, ...], alpha: Noise, generator: torch.Generator
    ) -> Tokens:
        """Tokens drawn from n / (1 - alpha), on the generator's device."""

    @abstractmethod
    def noise_row(self, alpha: Noise, like: Probs) -> Row:
        """n of every state, in the dtype of `like`."""

    @abstractmethod
    def log_noise_row(self, alpha: Noise, like: LogProbs) -> Row:
        """log n of every state, in the dtype of `like`; may be -inf."""

    @abstractmethod
    def added_row(self, alpha_s: Noise, alpha_t: Noise, like: Probs) -> Row:
        """n_{t|s} of every state, in the dtype of `like`."""

    def corrupt(self, x0: Tokens, alpha: Noise, generator: torch.Generator) -> Tokens:
        """Keep each token with probability alpha, otherwise redraw it from the noise."""
        level = torch.rand(x0.shape, generator=generator, dtype=torch.float64, device=x0.device)
        return torch.where(level < alpha, x0, self.sample_noise(tuple(x0.shape), alpha, generator))

    def log_score(self, log_x0: LogProbs, x_t: Tokens, alpha: Noise) -> LogProbs:
        """log q[y] - log q[x_t] with q = alpha x_0 + n."""
        signal = log_x0 + _like(log_x0, alpha.log())[..., None]
        log_q = torch.logaddexp(signal, self.log_noise_row(alpha, log_x0))
        return log_q - log_q.gather(-1, x_t[..., None])

    def log_noised(self, x_t: Tokens, x0: Tokens, alpha: Noise) -> Noise:
        """log( alpha 1{x_t = x_0} + n[x_t] )."""
        return (alpha * (x_t == x0) + self.noise(x_t, alpha)).log()

    def reverse(self, log_score: LogProbs, x_t: Tokens, alpha_s: Noise, alpha_t: Noise) -> Probs:
        """The analytic reverse step, which is exact if the score is exact.

            q(x_s | x_t) = q(x_t | x_s) q(x_s) / q(x_t),  1 >= alpha_s >= alpha_t > 0

        A learned score may be inconsistent: negative mass is clipped, and rows need not sum to 1.

        Source: Lou et al. 2024, arXiv:2310.16834; for the score of a law of the clean token, this
        is the posterior of MDLM and DUO.
        """
        earlier = self.staggered_score(log_score.exp(), alpha_s, alpha_t)
        return self._reach(x_t, alpha_s, alpha_t, earlier) * earlier.clamp_min(0)

    def staggered_score(self, score: Probs, alpha_s: Noise, alpha_t: Noise) -> Probs:
        """q_s(y) / q_t(x_t) at an earlier level, one of the two factors of the analytic step.

            (score[y] - n_{t|s}[y] sum(score)) / kept,  kept = alpha_t / alpha_s > 0

        Values can be negative if a learned score is not the score of any law. At alpha_s = 1, the
        result is the law of the clean token that the score implies, up to a factor.
        """
        added = self.added_row(alpha_s, alpha_t, score) * score.sum(-1, keepdim=True)
        return (score - added) / _like(score, alpha_t / alpha_s)[..., None]

    def posterior(self, log_x0: LogProbs, x_t: Tokens, alpha_s: Noise, alpha_t: Noise) -> Probs:
        """Bayes' rule for the given law of the clean token; also valid at alpha_t = 0.

        q(x_s | x_t) = q(x_t | x_s) q(x_s) / q(x_t),  q(x_s) = alpha_s x_0 + n_s
        """
        x0 = log_x0.exp()
        earlier = _like(x0, alpha_s)[..., None] * x0 + self.noise_row(alpha_s, x0)
        mass = self._reach(x_t, alpha_s, alpha_t, x0) * earlier
        return mass / mass.sum(-1, keepdim=True)

    def draw_open(
        self,
        log_x0: LogProbs,
        x_t: Tokens,
        alpha_s: Noise,
        alpha_t: Noise,
        *,
        generator: torch.Generator,
    ) -> Tokens:
        """Redraw from q_s = alpha_s x_0 + n_s, less often the likelier x_t is as a clean token.

            chance of a redraw = n_t[z] / (n_t[z] + alpha_t x_0[z])                    z = x_t

        This chance times the chance that `thin` opens the token is the chance of a redraw under the
        posterior.
        """
        redrawn = self.posterior_mixture(log_x0, x_t, torch.ones_like(alpha_s), alpha_t).denoiser
        parts = PosteriorMixture(1 - redrawn, redrawn * alpha_s, redrawn * (1 - alpha_s))
        return self._draw_part(parts, log_x0, x_t, alpha_s, generator)

    def posterior_mixture(
        self, log_x0: LogProbs, x_t: Tokens, alpha_s: Noise, alpha_t: Noise
    ) -> PosteriorMixture:
        """The posterior as a mixture whose weights need the denoiser's law only at x_t.

            stay:      kept (alpha_s x_0[z] + n_s[z])                 z = x_t
            denoiser:  n_{t|s}[z] alpha_s
            prior:     n_{t|s}[z] (1 - alpha_s)                       drawn from n_s / (1 - alpha_s)

        each divided by the sum of the three.
        """
        added = self.added(x_t, alpha_s, alpha_t)
        x0_here = log_x0.gather(-1, x_t[..., None]).squeeze(-1).double().exp()
        stay = alpha_t / alpha_s * (alpha_s * x0_here + self.noise(x_t, alpha_s))
        denoiser, prior = added * alpha_s, added * (1 - alpha_s)
        total = stay + denoiser + prior
        return PosteriorMixture(stay / total, denoiser / total, prior / total)

    def _draw_part(
        self,
        parts: PosteriorMixture,
        log_x0: LogProbs,
        x_t: Tokens,
        alpha_s: Noise,
        generator: torch.Generator,
    ) -> Tokens:
        """Pick a part of the mixture by one uniform number per row; only rows that pick the
        denoiser need a categorical draw.
        """
        level = torch.rand(x_t.shape, generator=generator, dtype=torch.float64, device=x_t.device)
        from_denoiser = level < parts.denoiser
        from_prior = ~from_denoiser & (level < parts.denoiser + parts.prior)
        noise = self.sample_noise(tuple(x_t.shape), alpha_s, generator)
        x_s = torch.where(from_prior, noise, x_t)
        places = Places.of(from_denoiser, static=is_static(x_t.device, self.num_states))
        laws = places.rows(log_x0)
        laws = laws.exp() if places.index is None else laws.exp_()  # which is a copy
        return places.spread(categorical.draw(laws, generator), x_s)

    def _reach(self, x_t: Tokens, alpha_s: Noise, alpha_t: Noise, states: Probs) -> Probs:
        """q(x_t | x_s) for every x_s: kept 1{x_s = x_t} + n_{t|s}[x_t]."""
        added = _like(states, self.added(x_t, alpha_s, alpha_t))[..., None]
        jumped = added.expand_as(states).clone()
        stayed = _like(states, alpha_t / alpha_s)[..., None].expand(*x_t.shape, 1)
        return jumped.scatter_add_(-1, x_t[..., None], stayed)


class Interpolating(Mixing):
    """Noise from one prior at all levels, n = (1 - alpha) pi; subclasses define the prior pi."""

    @abstractmethod
    def prior(self, tokens: Tokens) -> Noise:
        """Prior probability of each of the given tokens."""

    def noise(self, tokens: Tokens, alpha: Noise) -> Noise:
        """(1 - alpha) pi[token]."""
        return (1 - alpha) * self.prior(tokens)

    def added(self, tokens: Tokens, alpha_s: Noise, alpha_t: Noise) -> Noise:
        """(1 - alpha_t/alpha_s) pi[token]."""
        return (1 - alpha_t / alpha_s) * self.prior(tokens)

    def sample_noise(
        self, shape: tuple[int, ...], alpha: Noise, generator: torch.Generator
    ) -> Tokens:
        """Tokens drawn from the prior, which is the same at every level."""
        return self.sample_prior(shape, generator)

    def noise_row(self, alpha: Noise, like: Probs) -> Row:
        """(1 - alpha) pi."""
        return _like(like, 1 - alpha)[..., None] * self._prior_row(like)

    def log_noise_row(self, alpha: Noise, like: LogProbs) -> Row:
        """log(1 - alpha) + log pi."""
        return self._prior_row(like).log() + _like(like, (1 - alpha).log())[..., None]

    def added_row(self, alpha_s: Noise, alpha_t: Noise, like: Probs) -> Row:
        """(1 - alpha_t/alpha_s) pi."""
        return self.noise_row(alpha_t / alpha_s, like)

    def changeable(self, x_t: Tokens) -> Selected:
        """Positions that noise can have reached: where the prior is positive."""
        return self.prior(x_t) > 0

    def rate(self, x_t: Tokens, alpha: Noise, slope: Noise) -> Noise:
        """-(slope / alpha) pi[x_t]: the same from every other state."""
        return -(slope / alpha) * self.prior(x_t)

    def thin(
        self, x_t: Tokens, alpha_s: Noise, alpha_t: Noise, *, generator: torch.Generator
    ) -> Thinned:
        """Open each token with the greatest chance of a redraw under any law of the clean token.

            c = (alpha_s - alpha_t) / ((1 - alpha_t) alpha_s)      with z = x_t redrawn from q_s
            c = (alpha_s - alpha_t) / (1 - alpha_t)                where pi[z] = 1, from x_0 alone

        This is the total of the `denoiser` and `prior` weights of `posterior_mixture` at
        x_0[z] = 0. Where pi[z] = 1, a redraw from the prior changes nothing, so the `prior` weight
        is left out.
        """
        level = torch.where(self.prior(x_t) == 1, 1.0, alpha_s)
        chance = (alpha_s - alpha_t) / ((1 - alpha_t) * level)
        uniform = torch.rand(x_t.shape, generator=generator, dtype=torch.float64, device=x_t.device)
        return Thinned(self.changeable(x_t) & (uniform < chance), level)

    def _prior_row(self, like: Tensor) -> Tensor:
        return _like(like, self.prior(torch.arange(self.num_states, device=like.device)))


class MovingPrior(Mixing):
    """Noise whose prior changes with the signal level, given by three abstract methods: `noise`,
    `sample_noise` and `noise_slope`.

        rate(x_t)  = slope ( dn/dalpha - n / alpha )[x_t]

    Such a process exists if n / alpha of every state grows as alpha falls, because then no rate is
    negative. The states that noise reaches must be the same at all levels between 0 and 1.

    Source: GIDD, arXiv:2503.04482, in terms of alpha instead of time.
    """

    @abstractmethod
    def noise_slope(self, tokens: Tokens, alpha: Noise) -> Noise:
        """Derivative dn/dalpha at each of the given tokens, float64; sums to -1 over all states."""

    def sample_prior(self, shape: tuple[int, ...], generator: torch.Generator) -> Tokens:
        """Tokens drawn from the noise at alpha = 0."""
        alpha = torch.zeros(shape, dtype=torch.float64, device=generator.device)
        return self.sample_noise(shape, alpha, generator)

    def added(self, tokens: Tokens, alpha_s: Noise, alpha_t: Noise) -> Noise:
        """n_t - kept n_s, clipped at 0 against rounding."""
        earlier = self.noise(tokens, alpha_s)
        return (self.noise(tokens, alpha_t) - alpha_t / alpha_s * earlier).clamp_min(0)

    def noise_row(self, alpha: Noise, like: Probs) -> Row:
        return _like(like, self.noise(self._states(alpha), alpha[..., None]))

    def log_noise_row(self, alpha: Noise, like: LogProbs) -> Row:
        return _like(like, self.noise(self._states(alpha), alpha[..., None]).log())

    def added_row(self, alpha_s: Noise, alpha_t: Noise, like: Probs) -> Row:
        added = self.added(self._states(alpha_t), alpha_s[..., None], alpha_t[..., None])
        return _like(like, added)

    def changeable(self, x_t: Tokens) -> Selected:
        """Positions that noise can have reached: where n > 0 at alpha = 0.5."""
        half = torch.full((), 0.5, dtype=torch.float64, device=x_t.device)
        return self.noise(x_t, half.expand(x_t.shape)) > 0

    def rate(self, x_t: Tokens, alpha: Noise, slope: Noise) -> Noise:
        """slope (dn/dalpha - n / alpha)[x_t]: the same from every other state."""
        return slope * (self.noise_slope(x_t, alpha) - self.noise(x_t, alpha) / alpha)

    def thin(
        self, x_t: Tokens, alpha_s: Noise, alpha_t: Noise, *, generator: torch.Generator
    ) -> Thinned:
        """Open each token with the greatest chance of a redraw under any law of the clean token.

        The chance is n_{t|s}[z] / n_t[z] with z = x_t: the total of the `denoiser` and `prior`
        weights of `posterior_mixture` at x_0[z] = 0.
        """
        chance = self.added(x_t, alpha_s, alpha_t) / self.noise(x_t, alpha_t)
        uniform = torch.rand(x_t.shape, generator=generator, dtype=torch.float64, device=x_t.device)
        return Thinned(self.changeable(x_t) & (uniform < chance), alpha_s)

    def _states(self, alpha: Tensor) -> Tensor:
        states = torch.arange(self.num_states, device=alpha.device)
        return states.expand(*alpha.shape, self.num_states)


class Absorbing(Masking, Interpolating):
    """Noise hides tokens behind a mask, whose id comes after the vocabulary.

    Args:
        time_conditioned: whether the network is told the noise level, which it does not need,
            because the share of masks in the text shows the level already.

    Source: D3PM, arXiv:2107.03006, section 3.1; MDLM, arXiv:2406.07524.
    """

    def __init__(self, vocab_size: int, time_conditioned: bool = False) -> None:
        super().__init__(vocab_size, num_states=vocab_size + 1, time_conditioned=time_conditioned)
        self.mask_id = vocab_size

    def prior(self, tokens: Tokens) -> Noise:
        """1 at the mask, 0 elsewhere."""
        return (tokens == self.mask_id).double()


class Uniform(Interpolating, Replacing):
    """Noise replaces tokens by random tokens of the vocabulary; the network must be told the noise
    level.

    Source: D3PM, arXiv:2107.03006, section 3.1; UDLM, arXiv:2412.10193; DUO, arXiv:2506.10892.
    """

    all_changeable: ClassVar[bool] = True

    def __init__(self, vocab_size: int) -> None:
        super().__init__(vocab_size, num_states=vocab_size, time_conditioned=True)

    def prior(self, tokens: Tokens) -> Noise:
        """1 / num_states for every token."""
        return torch.full(
            tokens.shape, 1 / self.num_states, dtype=torch.float64, device=tokens.device
        )

    def sample_prior(self, shape: tuple[int, ...], generator: torch.Generator) -> Tokens:
        """Tokens drawn uniformly from the vocabulary."""
        return torch.randint(self.num_states, shape, generator=generator, device=generator.device)


States = Literal["absorbing", "uniform"]
"""The kind of noise: tokens become a mask, or random tokens of the vocabulary."""


class AbsorbingOrUniform(Interpolating):
    """Absorbing or uniform noise, by an option, for a network that is told the noise level.

    A family derives three classes:

        class Family(AbsorbingOrUniform)              the class that users name
        class AbsorbingFamily(Family, Absorbing)
        class UniformFamily(Family, Uniform)

    The `forms` of the family's component map the option to one of the last two classes.

    Args:
        states: absorbing (noise hides tokens behind a mask) or uniform (noise replaces them by
            random tokens of the vocabulary).
    """

    def __init__(self, vocab_size: int, states: States = "absorbing") -> None:
        super().__init__(vocab_size)  # type: ignore[call-arg]  # calls Absorbing or Uniform
        self.time_conditioned = True


def log_one_hot(tokens: Tokens, num_states: int, dtype: torch.dtype = torch.float32) -> LogProbs:
    """Log-probabilities with all mass on the given tokens: 0 there, `LOG_ZERO` elsewhere."""
    row = torch.full((*tokens.shape, num_states), LOG_ZERO, dtype=dtype, device=tokens.device)
    return row.scatter_(-1, tokens[..., None], 0.0)


def _like(other: Tensor, value: Tensor) -> Tensor:
    """Cast float64 noise levels to the dtype of a row of states, to keep the row from promotion."""
    return value.to(other.dtype)
