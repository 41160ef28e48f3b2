"""MDLM's objectives: the bound under masks, a weighted cross-entropy, and distillation (SDTT).

    f_t = -alpha' / (1 - alpha) ( -log x_theta[x_0] )  at masks, 0 elsewhere
    T steps:  T (alpha_s - alpha_t) / (1 - alpha_t) in place of -alpha' / (1 - alpha)

Tests check that the bound equals `platform_core.objective.Nelbo`.
"""

from collections.abc import Callable, Mapping
from typing import ClassVar, Literal, final

import torch

from platform_core import rows
from platform_core.categorical import KeepAll
from platform_core.distillation import (
    Distillation,
    Divergence,
    ForwardKl,
    ReadAt,
    ReverseKl,
    Rounds,
    SquaredError,
    TeacherWeights,
    TotalVariation,
)
from platform_core.draws import Draws
from platform_core.model import Model
from platform_core.objective import DiffusionObjective, Loss
from platform_core.parameterization import MaskFree
from platform_core.process import Absorbing
from platform_core.schedule import Stepwise
from platform_core.types import (
    Batch,
    Conditions,
    Hidden,
    Logits,
    LogProbs,
    Nats,
    Noise,
    Tokens,
)

Weighting = Callable[[Noise, Noise], Noise]
"""(alpha, slope) -> weight of the cross-entropy at a mask."""


@final
class MaskedNelbo(DiffusionObjective):
    """The bound under masks, for a network that never predicts the mask.

    Args:
        t_min: training draws times from [t_min, 1]; the published models use 1e-3. Without it, the
            rare times close to 0 give gradients of unbounded variance. The exact bound ignores it.
        weighting: weight of the cross-entropy at masks in training. bound: the weight in the bound.
            low-var: 1, whose gradients vary less. Evaluation reports the bound in either case.
        num_steps: number of steps of the schedule for which training and the bound are computed,
            instead of continuous time; the bound is then a little higher, and holds for samples
            drawn in as many steps.

    In T steps, the step to clean text is the reconstruction term: its coefficient is T.
    Source: MDLM, arXiv:2406.07524.
    """

    requires: ClassVar[Mapping[str, type]] = {"process": Absorbing, "parameterization": MaskFree}

    def __init__(
        self,
        model: Model,
        t_min: float = 1e-3,
        weighting: Literal["bound", "low-var"] = "bound",
        num_steps: int | None = None,
    ) -> None:
        super().__init__(model, t_min)
        self.weigh = _WEIGHTINGS[weighting]
        if num_steps is not None:
            self.schedule = self.exact_schedule = Stepwise(self.denoiser.schedule, num_steps)

    def row_loss(self, logits: Logits, x_t: Tokens, x0: Tokens, alpha: Noise, slope: Noise) -> Nats:
        """The cross-entropy times its weight in the bound."""
        return self._weighted(bound_weight, logits, x_t, x0, alpha, slope)

    def descended(
        self, logits: Logits, x_t: Tokens, x0: Tokens, alpha: Noise, slope: Noise
    ) -> Nats:
        """The cross-entropy times its weight in training."""
        return self._weighted(self.weigh, logits, x_t, x0, alpha, slope)

    def _weighted(
        self,
        weigh: Weighting,
        logits: Logits,
        x_t: Tokens,
        x0: Tokens,
        alpha: Noise,
        slope: Noise,
    ) -> Nats:
        parameterization, process = self.denoiser.parameterization, self.denoiser.process
        assert isinstance(parameterization, MaskFree), "see requires"
        nats = parameterization.nats(logits, x_t, x0, alpha, process)
        weight = torch.where(process.changeable(x_t), weigh(alpha, slope), 0.0)
        return weight.to(nats.dtype) * nats


def bound_weight(alpha: Noise, slope: Noise) -> Noise:
    """-alpha' / (1 - alpha): the rate at which a mask at time t becomes a token."""
    return -slope / (1 - alpha)


def unit_weight(alpha: Noise, slope: Noise) -> Noise:
    """Weight 1 at every noise level."""
    return torch.ones_like(alpha)


_WEIGHTINGS: Mapping[str, Weighting] = {"bound": bound_weight, "low-var": unit_weight}


DivergenceName = Literal["reverse-kl", "forward-kl", "mse", "tvd"]

_DIVERGENCES: Mapping[DivergenceName, type[Divergence]] = {
    "reverse-kl": ReverseKl,
    "forward-kl": ForwardKl,
    "mse": SquaredError,
    "tvd": TotalVariation,
}


@final
class Sdtt(Distillation):
    """Self-distillation through time: one step of the student replaces several of the teacher's.

        x_t -> x_{t-dt} -> x_{t-2dt} ...     the teacher's ancestral steps
        sum over masks of x_t: D(student given x_t, teacher given the text in which it replaces the
        mask by a token, or given its last text)

    Times are drawn from [teacher_steps dt, 1], so that the teacher can take all its steps; a
    student that takes steps of this length is never asked about lower times. Positions where x_t
    has no mask contribute 0; the loss is the sum over all counted tokens, as in every objective.

    Args:
        divergence: reverse-kl is KL(student, teacher), forward-kl KL(teacher, student), mse the
            squared distance of probabilities and tvd half the absolute one.
        teacher: weights that the teacher takes over when a round begins: the student's (student),
            or their average (ema).
        teacher_steps: number of teacher steps that one step of the student replaces.
        first_dt: length of a teacher step in the first round, in time; it doubles with each round.
        round_steps: updates in a round; the published value is 10,000.
        rounds: number of rounds; the published value is 7, from 1024 steps down to 8.

    The published code interpolates the teacher's times wrongly (it jumps to the end where it should
    make one step), and computes mse and tvd of log-probabilities.
    Source: SDTT, arXiv:2410.21035.
    """

    requires: ClassVar[Mapping[str, type]] = {"process": Absorbing, "parameterization": MaskFree}

    def __init__(
        self,
        model: Model,
        divergence: DivergenceName = "reverse-kl",
        teacher: TeacherWeights = "student",
        teacher_steps: int = 2,
        first_dt: float = (1 - 1e-3) / 1024,
        round_steps: int = 100,
        rounds: int = 7,
    ) -> None:
        super().__init__(
            model,
            ordinary=MaskedNelbo(model),
            rounds=Rounds(first_dt, round_steps, rounds),
            teacher=teacher,
            divergence=_DIVERGENCES[divergence](),
        )
        longest = teacher_steps * self.rounds.dt(round_steps * rounds)
        if teacher_steps < 1 or longest > 1:
            raise ValueError(
                f"teacher_steps is {teacher_steps}; it must be at least 1, and teacher_steps times "
                "dt of the last round at most 1: take a smaller first_dt, or fewer rounds"
            )
        self.teacher_steps = teacher_steps

    def forward(self, batch: Batch, draws: Draws) -> Loss:
        """The divergence at the masks of x_t."""
        dt = self.rounds.dt(draws.step)
        t = draws.times(batch.x0.shape[0], self.teacher_steps * dt)
        process, alpha = self.student_reads.process, self.student_reads.schedule.alpha(t)
        x_t = batch.kept_tokens(draws.each(process.corrupt, batch.x0, alpha))
        taught = self.taught(x_t, t, dt, draws, batch.conditions)
        hidden = self.student_reads.encode(x_t, alpha, batch.conditions)
        read = ReadAt.of(x_t, alpha)  # the law at a mask depends on no level
        return self.matched(hidden, read, taught, read, batch.mask & process.changeable(x_t))

    @torch.no_grad()
    def taught(
        self,
        x_t: Tokens,
        t: Noise,
        dt: float,
        draws: Draws,
        conditions: Conditions | None = None,
    ) -> Hidden:
        """Teacher features at each mask, from the step that replaces the mask or the last step."""
        reads, process = self.teacher_reads, self.teacher_reads.process
        levels = [reads.schedule.alpha(time) for time in step_times(t, dt, self.teacher_steps)]
        found = hidden = reads.encode(x_t, levels[0], conditions)
        for alpha_t, alpha_s in zip(levels[:-1], levels[1:], strict=True):
            x_t = draws.each(self._step, hidden, x_t, alpha_s, alpha_t)
            hidden = reads.encode(x_t, alpha_s, conditions)
            found = torch.where(process.changeable(x_t)[..., None], hidden, found)
        return found

    def _step(
        self,
        hidden: Hidden,
        x_t: Tokens,
        alpha_s: Noise,
        alpha_t: Noise,
        generator: torch.Generator,
    ) -> Tokens:
        """One ancestral step from features that are already computed."""
        process, parameterization = self.teacher_reads.process, self.teacher_reads.parameterization

        def draw(logits: LogProbs, x: Tokens, s: Noise, t: Noise) -> Tokens:
            return parameterization.draw_open(
                logits, x, s, t, process=process, truncation=KeepAll(), generator=generator
            )

        thinned = parameterization.thin(x_t, alpha_s, alpha_t, process=process, generator=generator)
        places = rows.Places.of(thinned.open)
        levels = (places.rows(a.expand(x_t.shape)) for a in (thinned.alpha_s, alpha_t))
        drawn = rows.collect(
            self.teacher.backbone.decoder,
            draw,
            places.rows(hidden),
            (places.rows(x_t), *levels),
            num_states=process.num_states,
        )
        return places.spread(drawn, x_t)


def step_times(t: Noise, dt: float, steps: int) -> list[Noise]:
    """Times t, t - dt, ... at which the network reads the text, one for each step."""
    return [t - number * dt for number in range(steps)]
