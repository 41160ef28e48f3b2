"""Objectives: the training loss, and the bound on -log p that evaluation reports.

    bound(x_0) = int_0^1 E_{x_t} f_t dt
    f_t = rate(x_t) sum_{y != x_t} ( s_y - r_y + r_y log(r_y / s_y) ) >= 0

with r the true score given x_0 and s the model's score, per position. `Nelbo` computes f_t for any
process and parameterization. Families ship closed forms of f_t, which tests compare with `Nelbo`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from platform_core import rows
from platform_core.draws import END_MARGIN, Draws
from platform_core.errors import UsageError
from platform_core.learned import learns
from platform_core.model import Denoiser, Model
from platform_core.parameterization import ScoreBased
from platform_core.process import Diffusion, log_one_hot
from platform_core.schedule import LogLinear, Schedule
from platform_core.types import Batch, Hidden, Inputs, Logits, LogProbs, Nats, Noise, Row, Tokens

Protocol = Literal["exact", "published"]
"""How to evaluate a bound. exact: the bound itself, over every signal level from 1 to 0. published:
times in [t_min, 1] of the model's schedule and no term for the ends, as in the papers' code; the
result is a little below the bound.
"""


class Loss(NamedTuple):
    """Loss of a batch, in nats."""

    total: Tensor
    """Sum over counted tokens, a float64 scalar that carries the gradient."""
    per_token: Nats
    """`[batch, length]` without gradient, 0 where a token does not count."""
    times: Noise | None = None
    """The time at which each sequence was noised, `[batch, 1]`, or each position, `[batch,
    length]`; None where nothing is noised."""


class Objective(nn.Module, ABC):
    """A loss over clean text, built around the model that it trains.

    `noise_levels` is the number of noise levels at which `bound` reads each sequence, or 0 where
    `bound` is exact. `starts_from_trained` says whether training makes sense only from the weights
    of a trained network (`--init`). `has_bound` is False for an objective whose `bound` is no bound
    on -log p: `bound` is then never called, `platform eval` refuses, and results leave it out.
    """

    requires: ClassVar[Mapping[str, type]] = {}
    noise_levels: ClassVar[int] = 1
    has_bound: ClassVar[bool] = True
    starts_from_trained: ClassVar[bool] = False

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    @abstractmethod
    def forward(self, batch: Batch, draws: Draws) -> Loss:
        """The training loss of the counted tokens."""

    @abstractmethod
    def bound(self, batch: Batch, draws: Draws, protocol: Protocol = "exact") -> Loss:
        """An unbiased estimate of an upper bound on -log p(x0), or -log p(x0) itself."""


class Following(ABC):
    """An objective with a state of its own that follows the training of its model.

    This state must be in the objective's parameters and saved buffers, which checkpoints hold.
    """

    @abstractmethod
    def after_update(self, step: int, average: Mapping[str, Tensor]) -> None:
        """Called once before training, when the first weights are in place, and after each update.

        Args:
            step: number of updates so far.
            average: the averaged parameters of the backbone, by name; copy them, do not keep them.
        """


class Guessing(ABC):
    """An objective that can return the most likely tokens under its model."""

    @abstractmethod
    def guesses(self, batch: Batch, draws: Draws) -> Tokens:
        """The most likely token at each counted position, and the clean token elsewhere."""


class Noised(NamedTuple):
    """A batch of noisy tokens, with signal level and slope."""

    inputs: Inputs
    """Input of the network: x_t, or a substitute for x_t."""
    x_t: Tokens
    """Noisy tokens that are passed to the row function."""
    alpha: Noise
    slope: Noise

    def around(self, batch: Batch) -> "Noised":
        """The same noisy batch, in which the tokens that the batch gives are clean."""
        if batch.given is None:
            return self
        return self._replace(inputs=batch.kept(self.inputs), x_t=batch.kept_tokens(self.x_t))


class DiffusionObjective(Objective, Guessing):
    """A bound that is the time integral of a row function, estimated at one time per sequence.

    If the schedule or the process has weights that are trained, training noises each text twice,
    which asks the network twice: `of_two` then adds the gradient of the noise's own law.

    A family may change the training loss and leave the bound alone: it overrides `descended`, the
    row function that training minimizes, or `noised`, which noises a batch for training. It may
    change both: `times` says when texts are noised, `features` what the network reads. Its
    constructor may also replace the schedules: `schedule` for training and the published protocol,
    `exact_schedule` for the exact protocol.

    Args:
        t_min: training draws times from [t_min, 1]; the published models use 1e-3. Without it, the
            rare times close to 0 give gradients of unbounded variance. The exact bound ignores it.
    """

    requires: ClassVar[Mapping[str, type]] = {"process": Diffusion, "parameterization": ScoreBased}

    def __init__(self, model: Model, t_min: float = 1e-3) -> None:
        super().__init__(model)
        if not 0 <= t_min < 1:
            raise ValueError(
                f"t_min is {t_min:g}; it must be at least 0 and below 1; papers use 1e-3"
            )
        self.t_min = t_min
        self.denoiser = Denoiser(model)
        self.schedule = self.denoiser.schedule
        self.exact_schedule: Schedule = LogLinear(eps=0)

    @abstractmethod
    def row_loss(self, logits: Logits, x_t: Tokens, x0: Tokens, alpha: Noise, slope: Noise) -> Nats:
        """f_t of each row, in nats per unit of time."""

    def descended(
        self, logits: Logits, x_t: Tokens, x0: Tokens, alpha: Noise, slope: Noise
    ) -> Nats:
        """The row function that training minimizes; here f_t itself."""
        return self.row_loss(logits, x_t, x0, alpha, slope)

    def times(self, x0: Tokens, draws: Draws, t_min: float) -> Noise:
        """Times in [t_min, 1] at which texts are noised: one of each, `[batch, 1]`.

        An objective may draw one of each position, `[batch, length]`.
        """
        return draws.times(x0.shape[0], t_min)

    def features(self, batch: Batch, noised: Noised) -> Hidden:
        """The network's features of the noisy tokens, `[batch, length, width]`."""
        return self.denoiser.encode(noised.inputs, noised.alpha, batch.conditions)

    def noised(self, x0: Tokens, draws: Draws) -> Noised:
        """The batch that training reads, noised at times in [t_min, 1] of `schedule`."""
        return self._corrupted_at(self.times(x0, draws, self.t_min), self.schedule, x0, draws)

    def forward(self, batch: Batch, draws: Draws) -> Loss:
        """The bound's integrand at times in [t_min, 1] of the model's schedule."""
        noised = self.noised(batch.x0, draws)
        process = self.denoiser.process
        if not (learns(process) or learns(self.denoiser.schedule)):
            return self._integrand(batch, noised, self.descended)
        if noised.inputs is not noised.x_t:
            raise UsageError(
                f"objective {type(self).__name__} lets the network read something else than noisy "
                "tokens, so noise with weights cannot be trained with it; choose another objective"
            )
        x_t = draws.each(process.corrupt, batch.x0, noised.alpha)
        return self.of_two(batch, noised, noised._replace(inputs=x_t, x_t=x_t))

    def of_two(self, batch: Batch, first: Noised, second: Noised) -> Loss:
        """The mean training loss of two noisy versions of each text, which are independent given
        their times. Its gradient has that of the law of the noise, q:

            d E f = E [ df + sum_k ( f(x) - f_{-k}(x') ) d log q(x_k | x_0) ]

        with f the loss of a text, x and x' its two versions, and f_{-k} the loss without that of
        position k: it does not depend on x_k, so that to subtract it changes no expectation.

        Source: REINFORCE with the other of two samples as a baseline, as in GenMD4,
        arXiv:2406.04329; to leave position k out of it lowers the variance.
        """
        losses = [self._integrand(batch, noised, self.descended) for noised in (first, second)]
        total = (losses[0].total + losses[1].total) / 2
        for noised, own, other in zip((first, second), losses, losses[::-1], strict=True):
            mine, others = own.per_token.double(), other.per_token.double()
            gain = mine.sum(-1, keepdim=True) - (others.sum(-1, keepdim=True) - others)
            log_q = self.denoiser.process.log_noised(noised.x_t, batch.x0, noised.alpha)
            if batch.given is not None:
                log_q = torch.where(batch.given, 0.0, log_q)
            term = (gain * log_q).sum() / 2
            total = total + term - term.detach()
        return Loss(total, (losses[0].per_token + losses[1].per_token) / 2)

    def bound(self, batch: Batch, draws: Draws, protocol: Protocol = "exact") -> Loss:
        """The integrand at times of `exact_schedule`, by default uniform signal levels whatever the
        model's schedule; under the published protocol, at times in [t_min, 1] of `schedule`.
        """
        exact = protocol == "exact"
        schedule, t_min = (self.exact_schedule, 0.0) if exact else (self.schedule, self.t_min)
        t = self.times(batch.x0, draws, t_min)
        noised = self._corrupted_at(t, schedule, batch.x0, draws)
        return self.integrand(batch, noised)._replace(times=t)

    def integrand(self, batch: Batch, noised: Noised) -> Loss:
        """The bound's integrand for a batch that has already been noised."""
        return self._integrand(batch, noised, self.row_loss)

    def guesses(self, batch: Batch, draws: Draws) -> Tokens:
        """The most likely tokens from one network call, which reads pure noise at the counted
        positions and clean tokens elsewhere.
        """
        x0, asked, process = batch.x0, batch.mask, self.denoiser.process
        noise = draws.each(
            lambda row, generator: process.sample_prior(tuple(row.shape), generator), x0
        )
        alpha = self.exact_schedule.alpha(
            torch.full_like(x0[:, :1], 1 - END_MARGIN, dtype=torch.float64)
        )
        x_t = torch.where(asked, noise, x0)
        with torch.no_grad():
            features = self.features(batch, Noised(x_t, x_t, alpha, -torch.ones_like(alpha)))
        return self.denoiser.most_likely(x_t, alpha, fixed=~asked, features=features)

    def _corrupted_at(self, t: Noise, schedule: Schedule, x0: Tokens, draws: Draws) -> Noised:
        alpha = schedule.alpha(t)
        x_t = draws.each(self.denoiser.process.corrupt, x0, alpha)
        return Noised(x_t, x_t, alpha, schedule.slope(t))

    def _integrand(self, batch: Batch, noised: Noised, row_loss: rows.RowLoss) -> Loss:
        noised = noised.around(batch)
        x0, (_, x_t, alpha, slope) = batch.x0, noised
        process = self.denoiser.process
        counted = rows.Places.of(
            batch.mask & process.changeable(x_t), every=batch.every and process.all_changeable
        )
        hidden = counted.rows(self.features(batch, noised))
        levels = (counted.rows(level.expand(x0.shape)) for level in (alpha, slope))
        total, values = rows.weighted_sum(
            self.model.backbone.decoder,
            row_loss,
            hidden,
            (counted.rows(x_t), counted.rows(x0), *levels),
            num_states=process.num_states,
        )
        return Loss(total, counted.spread(values, torch.zeros(x0.shape, device=x0.device)))


class Nelbo(DiffusionObjective):
    """The bound of any diffusion process under any parameterization, from the true score and the
    model's score.

    Source: the score entropy of Lou et al. 2024, arXiv:2310.16834; equal to the losses of MDLM,
    UDLM and DUO.
    """

    def row_loss(self, logits: Logits, x_t: Tokens, x0: Tokens, alpha: Noise, slope: Noise) -> Nats:
        """Bregman divergence between the true and the model's score, from each state times the rate
        from there.
        """
        process = self.denoiser.process
        learned = self.denoiser.parameterization.log_score(logits, x_t, alpha, process)
        true = process.log_score(log_one_hot(x0, process.num_states, learned.dtype), x_t, alpha)
        rates = process.rates(x_t, alpha, slope).to(learned.dtype)
        if rates.shape[-1] == 1:  # the same from every state
            return rates.squeeze(-1) * score_entropy(learned, true)
        divergences = torch.where(rates == 0, 0.0, score_divergences(learned, true))
        return (rates * divergences).sum(-1)


class ShortestNelbo(Nelbo):
    """The bound of any diffusion process under any parameterization, by the parameterization's
    closed form where it has one for the process, and from scores elsewhere.

    Source: the score entropy of Lou et al. 2024, arXiv:2310.16834; equal to the losses of MDLM,
    UDLM and DUO.
    """

    def row_loss(self, logits: Logits, x_t: Tokens, x0: Tokens, alpha: Noise, slope: Noise) -> Nats:
        """The closed form, or the divergence of `Nelbo`, which it equals up to rounding."""
        closed = self.denoiser.parameterization.closed_bound(self.denoiser.process)
        return (closed or super().row_loss)(logits, x_t, x0, alpha, slope)


def score_entropy(log_score: LogProbs, log_true: LogProbs) -> Nats:
    """sum_y ( s_y - r_y + r_y log(r_y / s_y) ) of scores s against r; 0 where they agree."""
    return score_divergences(log_score, log_true).sum(-1)


def score_divergences(log_score: LogProbs, log_true: LogProbs) -> Row:
    """s_y - r_y + r_y log(r_y / s_y) of scores s against r for every state y."""
    true = log_true.exp()
    return log_score.exp() - true + true * (log_true - log_score)
