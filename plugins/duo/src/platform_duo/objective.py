"""DUO's objectives: the continuous-time bound of uniform noise in closed form, and distillation.

    q  = alpha e_{x_0} + (1 - alpha) / K          q' = alpha x_theta + (1 - alpha) / K
    f  = rate(z) / q[z] ( KL(q || q') + e^v - 1 - v ),   v = log q[z] / q'[z],   z = x_t

The sums over the vocabulary are simplified by hand, so that a token costs one logarithm per state.
Tests check that the bound equals `platform_core.objective.Nelbo`.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor

from platform_core.distillation import (
    Distillation,
    Divergence,
    ForwardKl,
    ReadAt,
    ReverseKl,
    Rounds,
    TeacherWeights,
)
from platform_core.draws import Draws
from platform_core.model import Model
from platform_core.objective import DiffusionObjective, Loss
from platform_core.parameterization import Mean, PredictsClean, widen
from platform_core.process import Uniform
from platform_core.types import Batch, Logits, LogProbs, Nats, Noise, Selected, Tokens
from platform_duo import gaussian
from platform_duo.parameterization import log_denoised
from platform_duo.schedule import Gaussian
from platform_duo.trajectory import draw_trajectory


class UniformNelbo(DiffusionObjective):
    """The bound of uniform noise for a network that predicts the clean token.

    Source: the Rao-Blackwellised NELBO of DUO, arXiv:2506.10892, which rewrites that of UDLM,
    arXiv:2412.10193, without a one-hot vector. Its terms are regrouped here, see `uniform_nelbo`.
    """

    requires: ClassVar[Mapping[str, type]] = {
        "process": Uniform,
        "parameterization": PredictsClean,
    }

    def row_loss(self, logits: Logits, x_t: Tokens, x0: Tokens, alpha: Noise, slope: Noise) -> Nats:
        """`uniform_nelbo` of the predicted law of the clean token."""
        parameterization = self.denoiser.parameterization
        assert isinstance(parameterization, PredictsClean), "see requires"
        if type(parameterization) is Mean:
            return uniform_nelbo_of_logits(widen(logits), x_t, x0, alpha=alpha, slope=slope)
        log_x0 = parameterization.log_x0(logits, x_t, alpha, self.denoiser.process)
        return uniform_nelbo(log_x0, x_t, x0, alpha=alpha, slope=slope)


@final
class DenoisingCrossEntropy(UniformNelbo):
    """Plain cross-entropy of the clean token given all noisy tokens, at every noise level alike.

    Fits the law D of `platform_duo.parameterization`, of which the parameterization `denoiser` is
    the softmax; another parameterization that predicts the clean token from the others is turned
    into D first. Evaluation reports the bound of the leave-one-out law.

    Args:
        t_min: training draws times from [t_min, 1]; the exact bound ignores it.

    Source: arXiv:2605.22765.
    """

    def __init__(self, model: Model, t_min: float = 1e-3) -> None:
        super().__init__(model, t_min)

    def descended(
        self, logits: Logits, x_t: Tokens, x0: Tokens, alpha: Noise, slope: Noise
    ) -> Nats:
        """-log D[x_0] in nats."""
        parameterization, process = self.denoiser.parameterization, self.denoiser.process
        assert isinstance(parameterization, PredictsClean), "see requires"
        log_x0 = parameterization.log_x0(logits, x_t, alpha, process)
        law = log_denoised(log_x0, x_t, alpha, process)
        return -law.gather(-1, x0[..., None]).squeeze(-1)


def uniform_nelbo(log_x0: LogProbs, x_t: Tokens, x0: Tokens, *, alpha: Noise, slope: Noise) -> Nats:
    """Integrand f_t >= 0 of the bound under uniform noise, in nats per unit of time.

    With r = K alpha / (1 - alpha), u_j = log(1 + r x_theta[j]), L = log(1 + r), z = x_t, x = x_0:

        q[z]        = (1 - alpha) (1 + r 1{z = x}) / K
        KL(q || q') = (1 - alpha) / K ( L - sum_j u_j + r (L - u_x) )
        v           = L 1{z = x} - u_z
        f           = -slope / (alpha K q[z]) ( KL + e^v - 1 - v )

    Term by term, f equals DUO's formula. In DUO's form, terms of order 1 / alpha cancel each other;
    here KL and e^v - 1 - v are both >= 0, and values with one number per token are float64.

    Args:
        log_x0: log x_theta, float32 or wider.
        x_t: noisy tokens.
        x0: clean tokens.
        alpha: signal level in (0, 1), float64.
        slope: d alpha / dt, float64.

    Source: arXiv:2506.10892 (its Rao-Blackwellised NELBO), arXiv:2412.10193.
    """
    log_r = _log_r(log_x0.shape[-1], alpha)
    # This form keeps two wide tensors for the backward pass; r * exp(log_x0) would keep three.
    total = (log_x0 + log_r[..., None].to(log_x0.dtype)).exp().log1p().sum(-1)
    log_here = log_x0.gather(-1, torch.stack((x_t, x0), dim=-1))
    return _combined(total, log_here, x_t == x0, alpha, slope, num_states=log_x0.shape[-1])


def uniform_nelbo_of_logits(
    logits: Logits, x_t: Tokens, x0: Tokens, *, alpha: Noise, slope: Noise
) -> Nats:
    """`uniform_nelbo` of the softmax of logits, float32 or wider, with a gradient by hand.

    Each pass over the vocabulary counts: there is one exponential and one logarithm per state.
    """
    num_states = logits.shape[-1]
    r = _log_r(num_states, alpha).exp().to(logits.dtype)
    total, log_here = _Sums.apply(logits, r, torch.stack((x_t, x0), dim=-1))  # type: ignore[no-untyped-call]
    return _combined(total, log_here, x_t == x0, alpha, slope, num_states=num_states)


def _log_r(num_states: int, alpha: Noise) -> Noise:
    return math.log(num_states) + alpha.log() - (-alpha).log1p()


def _combined(
    total: Nats,
    log_here: LogProbs,
    same: Selected,
    alpha: Noise,
    slope: Noise,
    *,
    num_states: int,
) -> Nats:
    """f from the sum of all u_j and from log x_theta at z and x, in float64."""
    log_r = _log_r(num_states, alpha)
    r, clean = log_r.exp(), log_r.exp().log1p()
    u_t, u_0 = (log_here.double() + log_r[..., None]).exp().log1p().unbind(-1)
    q_true = torch.where(same, clean, 0.0)
    excess = q_true - u_t
    divergence = (1 - alpha) / num_states * (clean - total.double() + r * (clean - u_0))
    q_here = (1 - alpha) / num_states * q_true.exp()
    f = -slope / (alpha * num_states * q_here) * (divergence + excess.expm1() - excess)
    return f.to(total.dtype)


class _Sums(torch.autograd.Function):
    """sum_j log(1 + r p_j) and log p at some places, of p = softmax(logits).

    With s_j = g r p_j / (1 + r p_j), plus the gradient of log p at the places, the gradient of the
    logits is s - p sum(s). One wide tensor, r p, is kept.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, r: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        law = logits.softmax(-1)
        log_total = logits.amax(-1, keepdim=True) - law.amax(-1, keepdim=True).log()
        here = logits.gather(-1, places) - log_total
        odds = law.mul_(r[..., None])
        ctx.save_for_backward(odds, r, places)
        return odds.log1p().sum(-1), here

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, of_total: Tensor, of_here: Tensor) -> tuple[Tensor, None, None]:
        odds, r, places = ctx.saved_tensors
        slope = (odds + 1).reciprocal_().mul_(odds).mul_(of_total[..., None])
        slope.scatter_add_(-1, places, of_here)
        share = slope.sum(-1, keepdim=True) / r[..., None]
        return slope.addcmul_(odds, share, value=-1), None, None


WINDOW = 0.99869414, 0.0061863085
"""Signal levels at the ends of DUO's distillation window, gamma -4 to -1 at 50,257 states."""

DivergenceName = Literal["reverse-kl", "forward-kl"]

_DIVERGENCES: Mapping[DivergenceName, type[Divergence]] = {
    "reverse-kl": ReverseKl,
    "forward-kl": ForwardKl,
}


@final
class DiscreteConsistency(Distillation):
    """Discrete consistency: a student predicts from x_t what its teacher predicts from x_s.

        x_t, x_s     two points of one path of the Gaussian diffusion, s = t - dt (`trajectory`)
        sum over l:  D( x_theta(x_t, t), x_teacher(x_s, s) )

    The student is told the signal level alpha_t and the teacher alpha_s. These levels come from the
    operator T, not from the model's schedule, but are clipped to the range of that schedule. Times
    are drawn from [dt, 1]. The published code draws t + dt from [dt, 1 + dt] and clips it to 1, so
    that a share dt of all sequences is noised at t = 1.

    Args:
        divergence: reverse-kl is KL(student, teacher), forward-kl KL(teacher, student).
        teacher: weights that the teacher takes over when a round begins: the student's (student),
            or their average (ema).
        gamma_min: -log of the signal-to-noise ratio at t = 0; by default alpha is 0.9987 there,
            which is DUO's -4 at 50,257 states.
        gamma_max: -log of the signal-to-noise ratio at t = 1; by default alpha is 0.0062 there,
            which is DUO's -1 at 50,257 states.
        first_dt: time t - s in the first round; it doubles with each round.
        round_steps: updates in a round; the published value is 10,000.
        rounds: number of rounds; the published value is 5, up to dt = 16/512.

    Source: DUO, arXiv:2506.10892, algorithm 1.
    """

    requires: ClassVar[Mapping[str, type]] = {
        "process": Uniform,
        "parameterization": PredictsClean,
    }

    def __init__(
        self,
        model: Model,
        divergence: DivergenceName = "reverse-kl",
        teacher: TeacherWeights = "student",
        gamma_min: float | None = None,
        gamma_max: float | None = None,
        first_dt: float = 1 / 512,
        round_steps: int = 160,
        rounds: int = 5,
    ) -> None:
        super().__init__(
            model,
            ordinary=UniformNelbo(model),
            rounds=Rounds(first_dt, round_steps, rounds),
            teacher=teacher,
            divergence=_DIVERGENCES[divergence](),
        )
        num_states = model.process.num_states
        low, high = gaussian.window(num_states, *WINDOW)
        self.path = Gaussian(
            num_states,
            low if gamma_min is None else gamma_min,
            high if gamma_max is None else gamma_max,
        )

    def forward(self, batch: Batch, draws: Draws) -> Loss:
        """The divergence at every position, with one pair of times (s, t) for each sequence."""
        dt = self.rounds.dt(draws.step)
        t = draws.times(batch.x0.shape[0], dt)
        s = t - dt
        num_states = self.student_reads.process.num_states
        trajectory = draws.each(
            lambda row, generator: draw_trajectory(row, num_states, generator), batch.x0
        )
        x_t = batch.kept_tokens(trajectory.at(self.path.mu(t)))
        x_s = batch.kept_tokens(trajectory.at(self.path.mu(s)))
        student = ReadAt.of(x_t, self.path.alpha(t))
        teacher = ReadAt.of(x_s, self.path.alpha(s))
        with torch.no_grad():
            taught = self.teacher_reads.encode(x_s, self.path.alpha(s), batch.conditions)
        hidden = self.student_reads.encode(x_t, self.path.alpha(t), batch.conditions)
        return self.matched(hidden, student, taught, teacher, batch.mask)
