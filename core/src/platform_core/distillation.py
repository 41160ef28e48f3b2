"""Distillation in rounds: a student learns to do in one step what its teacher does in several.

    round = step // round_steps            the teacher is the student as it was when the round began
    dt    = first_dt 2^round               the time step doubles with each round

This module holds what DUO's discrete consistency distillation and SDTT share: the rounds, the
frozen teacher, and row-wise divergences between two laws of the clean token.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, final

import torch

from platform_core import rows
from platform_core.draws import Draws
from platform_core.model import Denoiser, Model, Tensors, weights
from platform_core.objective import Following, Loss, Objective, Protocol
from platform_core.parameterization import PredictsClean
from platform_core.process import Diffusion
from platform_core.types import Batch, Hidden, Logits, LogProbs, Nats, Noise, Selected, Tokens

TeacherWeights = Literal["student", "ema"]
"""Weights that the teacher of a round copies: the student's latest, or their moving average."""


class Divergence(ABC):
    """Divergence of the student's law of a token from the teacher's: at least 0, and 0 if equal."""

    @abstractmethod
    def __call__(self, log_student: LogProbs, log_teacher: LogProbs) -> Nats:
        """The divergence at each row, from log-probabilities of both laws."""


@final
class ReverseKl(Divergence):
    """KL(student, teacher) = sum_y p (log p - log q): the student avoids tokens that the teacher
    finds unlikely.

    Source: the default of DUO's and SDTT's code, "kl-bwd".
    """

    def __call__(self, log_student: LogProbs, log_teacher: LogProbs) -> Nats:
        return _kl(log_student, log_teacher)


@final
class ForwardKl(Divergence):
    """KL(teacher, student) = sum_y q (log q - log p): the student covers tokens that the teacher
    finds likely.
    """

    def __call__(self, log_student: LogProbs, log_teacher: LogProbs) -> Nats:
        return _kl(log_teacher, log_student)


@final
class SquaredError(Divergence):
    """sum_y (p - q)^2 of probabilities. SDTT's code takes the mean over y, of log-probabilities."""

    def __call__(self, log_student: LogProbs, log_teacher: LogProbs) -> Nats:
        return (log_student.exp() - log_teacher.exp()).square().sum(-1)


@final
class TotalVariation(Divergence):
    """1/2 sum_y |p - q| of probabilities. SDTT's code takes log-probabilities instead."""

    def __call__(self, log_student: LogProbs, log_teacher: LogProbs) -> Nats:
        return (log_student.exp() - log_teacher.exp()).abs().sum(-1) / 2


def _kl(log_p: LogProbs, log_q: LogProbs) -> Nats:
    return (log_p.exp() * (log_p - log_q)).sum(-1)


@dataclass(frozen=True)
class Rounds:
    """Rounds of distillation: when the teacher is renewed, and the time step dt of each round.

    Args:
        first_dt: dt in the first round, as a share of the time from clean text to noise.
        round_steps: number of updates in a round.
        rounds: number of rounds; the last one continues until training ends.

    Raises:
        ValueError: `round_steps` or `rounds` is below 1, or `first_dt` is not above 0, or dt
            exceeds 1 in the last round.
    """

    first_dt: float
    round_steps: int
    rounds: int

    def __post_init__(self) -> None:
        if min(self.round_steps, self.rounds) < 1:
            raise ValueError(
                f"round_steps is {self.round_steps} and rounds {self.rounds}; "
                "both must be at least 1"
            )
        if not 0 < self.first_dt <= self.first_dt * 2.0 ** (self.rounds - 1) <= 1:
            raise ValueError(
                f"first_dt is {self.first_dt:g}; it must be above 0, and at most 1 after it has "
                f"doubled {self.rounds - 1} times: take a smaller one, or fewer rounds"
            )

    def dt(self, step: int) -> float:
        """The time step dt of the round after `step` updates."""
        return float(self.first_dt * 2.0 ** min(step // self.round_steps, self.rounds - 1))

    def begins(self, step: int) -> bool:
        """Whether a round begins after `step` updates."""
        return step % self.round_steps == 0 and step // self.round_steps < self.rounds


@final
class Teacher(Model):
    """A model with a frozen copy of another model's network, without gradients or dropout.

    The published code leaves the teacher's dropout on.
    """

    def __init__(self, model: Model) -> None:
        backbone = copy.deepcopy(model.backbone)
        super().__init__(model.process, model.schedule, model.parameterization, backbone)
        # The network alone: the schedule may have weights, which the student shares and trains.
        self.backbone.requires_grad_(requires_grad=False)
        self.train()

    def train(self, mode: bool = True) -> "Teacher":
        """Stay in evaluation mode, whatever `mode` says."""
        return super().train(mode=False)

    @torch.no_grad()
    def take(self, tensors: Tensors) -> None:
        """Copy the given weights into the teacher's network."""
        for name, own in weights(self.backbone).items():
            own.copy_(tensors[name])


class ReadAt(NamedTuple):
    """Tokens that a network read, and their signal level, `[batch, length]` each."""

    tokens: Tokens
    alpha: Noise

    @classmethod
    def of(cls, tokens: Tokens, alpha: Noise) -> "ReadAt":
        """Tokens at one level for each text, `[batch, 1]`."""
        return cls(tokens, alpha.expand(tokens.shape))


class Distillation(Objective, Following):
    """The divergence of a student's predictions from its teacher's, as a training loss.

    The bound that evaluation reports comes from another objective, so that it is comparable with
    that of models trained without distillation.

    Args:
        model: the student.
        ordinary: an objective of the same model, which computes the bound.
        rounds: the rounds, see `Rounds`.
        teacher: the weights that the teacher of a round copies.
        divergence: divergence of the student's law from the teacher's.
    """

    requires: ClassVar[Mapping[str, type]] = {
        "process": Diffusion,
        "parameterization": PredictsClean,
    }
    starts_from_trained: ClassVar[bool] = True

    def __init__(
        self,
        model: Model,
        *,
        ordinary: Objective,
        rounds: Rounds,
        teacher: TeacherWeights,
        divergence: Divergence,
    ) -> None:
        super().__init__(model)
        self.ordinary, self.rounds, self.divergence = ordinary, rounds, divergence
        self.teacher = Teacher(model)
        self.student_reads, self.teacher_reads = Denoiser(model), Denoiser(self.teacher)
        self._source = _SOURCES[teacher]

    def bound(self, batch: Batch, draws: Draws, protocol: Protocol = "exact") -> Loss:
        return self.ordinary.bound(batch, draws, protocol)

    def after_update(self, step: int, average: Tensors) -> None:
        """Renew the teacher if a round begins."""
        if self.rounds.begins(step):
            self.teacher.take(self._source(weights(self.model.backbone), average))

    def row_loss(
        self,
        logits: Logits,
        x_t: Tokens,
        alpha_t: Noise,
        taught: Hidden,
        x_s: Tokens,
        alpha_s: Noise,
    ) -> Nats:
        """The divergence at single positions.

        Args:
            logits: the student's logits.
            x_t: the tokens that the student read.
            alpha_t: the signal level of these tokens.
            taught: the teacher's features, before its decoder.
            x_s: the tokens that the teacher read.
            alpha_s: the signal level of these tokens.
        """
        process, parameterization = self.student_reads.process, self.model.parameterization
        assert isinstance(parameterization, PredictsClean), "see requires"
        with torch.no_grad():
            said = self.teacher.backbone.decoder(taught)
            log_teacher = parameterization.log_x0(said, x_s, alpha_s, process)
        log_student = parameterization.log_x0(logits, x_t, alpha_t, process)
        return self.divergence(log_student, log_teacher)

    def matched(
        self, hidden: Hidden, student: ReadAt, taught: Hidden, teacher: ReadAt, counted: Selected
    ) -> Loss:
        """Sum `row_loss` over the counted positions; all features begin with `[batch, length]`."""
        places = rows.Places.of(counted)
        total, values = rows.weighted_sum(
            self.model.backbone.decoder,
            self.row_loss,
            places.rows(hidden),
            tuple(places.rows(column) for column in (*student, taught, *teacher)),
            num_states=self.student_reads.process.num_states,
            decodes=True,
        )
        return Loss(total, places.spread(values, torch.zeros(counted.shape, device=counted.device)))


def _last(last: Tensors, average: Tensors) -> Tensors:
    return last


def _averaged(last: Tensors, average: Tensors) -> Tensors:
    return {**last, **average}


_SOURCES: Mapping[TeacherWeights, Callable[[Tensors, Tensors], Tensors]] = {
    "student": _last,
    "ema": _averaged,
}
