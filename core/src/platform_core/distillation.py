"""Distillation: in rounds, a student learns to do in one step what its teacher does in several.

    round = step // round_steps            the teacher is the student as it was when the round began
    dt    = first_dt 2^round               and what it steps over doubles with each

What objectives have in common that follow DUO's discrete consistency or SDTT: the rounds, the
frozen teacher, and divergences between two laws of the clean token, by rows.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch

from platform_core import rows
from platform_core.draws import Draws
from platform_core.model import Denoiser, Model, Tensors, weights
from platform_core.objective import Following, Loss, Objective, Protocol
from platform_core.parameterization import PredictsClean
from platform_core.process import Diffusion
from platform_core.types import Batch, Hidden, Logits, LogProbs, Nats, Selected, Tokens

TeacherWeights = Literal["student", "ema"]
"""What the teacher of a round is: the student's last weights, or their average."""


class Divergence(ABC):
    """How far the student's law of a token is from the teacher's: at least 0, and 0 where equal."""

    @abstractmethod
    def __call__(self, log_student: LogProbs, log_teacher: LogProbs) -> Nats:
        """The value of each row."""


@final
class ReverseKl(Divergence):
    """KL(student, teacher) = sum_y p (log p - log q): the student leaves out what the teacher does.

    Source: the default of DUO's and SDTT's code, "kl-bwd".
    """

    def __call__(self, log_student: LogProbs, log_teacher: LogProbs) -> Nats:
        return _kl(log_student, log_teacher)


@final
class ForwardKl(Divergence):
    """KL(teacher, student) = sum_y q (log q - log p): the student covers what the teacher does."""

    def __call__(self, log_student: LogProbs, log_teacher: LogProbs) -> Nats:
        return _kl(log_teacher, log_student)


@final
class SquaredError(Divergence):
    """sum_y (p - q)^2, of probabilities. SDTT's code has the mean over y, of their logarithms."""

    def __call__(self, log_student: LogProbs, log_teacher: LogProbs) -> Nats:
        return (log_student.exp() - log_teacher.exp()).square().sum(-1)


@final
class TotalVariation(Divergence):
    """1/2 sum_y |p - q|, of probabilities. SDTT's code has it of their logarithms."""

    def __call__(self, log_student: LogProbs, log_teacher: LogProbs) -> Nats:
        return (log_student.exp() - log_teacher.exp()).abs().sum(-1) / 2


def _kl(log_p: LogProbs, log_q: LogProbs) -> Nats:
    return (log_p.exp() * (log_p - log_q)).sum(-1)


@dataclass(frozen=True)
class Rounds:
    """When the teacher is renewed, and what it steps over.

    Args:
        first_dt: time between what student and teacher read in the first round.
        round_steps: updates in a round.
        rounds: how many; the last one goes on until training ends.

    Raises:
        ValueError: there are none, or the last would step over more time than there is.
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
        """What is stepped over after so many updates."""
        return float(self.first_dt * 2.0 ** min(step // self.round_steps, self.rounds - 1))

    def begins(self, step: int) -> bool:
        """Whether a round begins after so many updates."""
        return step % self.round_steps == 0 and step // self.round_steps < self.rounds


@final
class Teacher(Model):
    """A model with a frozen copy of another one's network: no gradients, and never any dropout.

    Published code leaves the dropout of the teacher on.
    """

    def __init__(self, model: Model) -> None:
        backbone = copy.deepcopy(model.backbone)
        super().__init__(model.process, model.schedule, model.parameterization, backbone)
        self.requires_grad_(requires_grad=False)
        self.train()

    def train(self, mode: bool = True) -> "Teacher":
        """Evaluation mode, whatever is asked for."""
        return super().train(mode=False)

    @torch.no_grad()
    def take(self, tensors: Tensors) -> None:
        """Takes over the weights of a network."""
        for name, own in weights(self.backbone).items():
            own.copy_(tensors[name])


class Distillation(Objective, Following):
    """The divergence of a student's predictions from its teacher's.

    The bound that evaluation reports is another objective's: it says what the student's text is
    worth, however the student came to be.

    Args:
        model: the student.
        ordinary: an objective of the same model, for its bound.
        rounds: see `Rounds`.
        teacher: what the teacher of a round is.
        divergence: from the teacher's law to the student's.
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
        """Renews the teacher where a round begins."""
        if self.rounds.begins(step):
            self.teacher.take(self._source(weights(self.model.backbone), average))

    def row_loss(self, logits: Logits, x_t: Tokens, taught: Hidden, x_s: Tokens) -> Nats:
        """The divergence at single positions.

        Args:
            logits: the student's.
            x_t: the tokens it read.
            taught: the teacher's features.
            x_s: the tokens it read.
        """
        process, parameterization = self.student_reads.process, self.model.parameterization
        assert isinstance(parameterization, PredictsClean), "see requires"
        with torch.no_grad():
            said = self.teacher.backbone.decoder(taught)
            log_teacher = parameterization.log_x0(said, x_s, process)
        return self.divergence(parameterization.log_x0(logits, x_t, process), log_teacher)

    def matched(
        self, hidden: Hidden, x_t: Tokens, taught: Hidden, x_s: Tokens, counted: Selected
    ) -> Loss:
        """The sum of `row_loss` over the counted positions, all arguments being of `[batch,
        length]`.
        """
        total, values = rows.weighted_sum(
            self.model.backbone.decoder,
            self.row_loss,
            hidden[counted],
            (x_t[counted], taught[counted], x_s[counted]),
            num_states=self.student_reads.process.num_states,
        )
        return Loss(
            total, torch.zeros(x_t.shape, device=x_t.device).masked_scatter(counted, values)
        )


def _last(last: Tensors, average: Tensors) -> Tensors:
    return last


def _averaged(last: Tensors, average: Tensors) -> Tensors:
    return {**last, **average}


_SOURCES: Mapping[TeacherWeights, Callable[[Tensors, Tensors], Tensors]] = {
    "student": _last,
    "ema": _averaged,
}
