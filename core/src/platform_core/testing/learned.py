"""Gradients of weights on which the noise depends, by enumeration of all noisy texts.

    d/dw sum_x q_w(x | x_0) f_w(x)      against      sum_{x, x'} q(x) q(x') (gradient of training)

f is the loss of one text at one time. The derivative is a difference quotient along one direction
of the weights, so that it asks no gradient of anything. The laws of processes and schedules with
weights use it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import combinations_with_replacement

import torch
from torch import Tensor, nn

from platform_core.draws import derive_generator
from platform_core.model import Model
from platform_core.objective import DiffusionObjective, Nelbo, Noised
from platform_core.testing.law import Figures, require
from platform_core.testing.partners import settings
from platform_core.testing.subject import Subject
from platform_core.testing.toy import AsItIs, all_sequences, marginals
from platform_core.types import Batch, Noise

STEP = 1e-5
"""Length of the step along the weights for a difference quotient."""


def without_weights(subject: Subject) -> str:
    """Why laws of weights do not apply; empty if they may."""
    return "" if issubclass(subject.kind, nn.Module) else "it has no weights"


def trained_right(subject: Subject) -> Figures:
    """Require training to give the weights of a process or schedule the derivative of the loss."""
    said = []
    for setting in settings(subject):
        model, network = setting.tiny(2)
        if subject.role == "schedule":
            schedule = subject.make(vocab_size=2, num_states=model.process.num_states)
            model = Model(model.process, schedule, model.parameterization, network)
        x0 = torch.tensor([[0, 1]])
        batch = Batch(x0, torch.ones_like(x0, dtype=torch.bool))
        time = torch.tensor([[0.4]], dtype=torch.float64)
        found, expected = derivatives(Nelbo(model.double()), batch, time)
        figures = f"{setting}: {found:.6g} for {expected:.6g}"
        allowed = 1e-5 * max(abs(expected), 1e-2)
        require(abs(found - expected) < allowed, f"the mean gradient is not the loss's; {figures}")
        said.append(figures)
    return "; ".join(said)


def derivatives(objective: DiffusionObjective, batch: Batch, t: Noise) -> tuple[float, float]:
    """The mean gradient of training, and the derivative of the mean loss, along one direction.

    Args:
        objective: its process or its schedule has weights, and all of it is float64.
        batch: one text, `[1, length]`; tokens that are given get no noise.
        t: the time, `[1, 1]`.

    Returns:
        Both derivatives, in nats for a step of length 1.
    """
    objective.denoiser = AsItIs(objective.model)
    parts = (objective.denoiser.process, objective.model.schedule)
    modules = [part for part in parts if isinstance(part, nn.Module)]
    weights = [weight for module in modules for weight in module.parameters()]
    generator = derive_generator("a direction of the weights")
    way = [torch.randn(w.shape, generator=generator, dtype=w.dtype) for w in weights]
    states, chances = _noisy_texts(objective, batch, t)
    found = 0.0
    for (x, p), (other, q) in combinations_with_replacement(_pairs(states, chances), 2):
        two = [_noised(objective, t, x_t[None]) for x_t in (x, other)]
        loss = objective.of_two(batch, *two).total  # the same in either order
        slopes = zip(torch.autograd.grad(loss, weights, allow_unused=True), way, strict=True)
        along = sum(float((slope * d).sum()) for slope, d in slopes if slope is not None)
        found += (1 if x is other else 2) * p * q * along
    ends = []
    for step in (STEP, -STEP):
        with _moved(weights, way, step), torch.no_grad():
            ends.append(_mean_loss(objective, batch, t))
    return found, (ends[0] - ends[1]) / (2 * STEP)


@contextmanager
def _moved(weights: Sequence[Tensor], way: Sequence[Tensor], step: float) -> Iterator[None]:
    kept = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight, direction in zip(weights, way, strict=True):
            weight += step * direction
    yield
    with torch.no_grad():
        for weight, before in zip(weights, kept, strict=True):
            weight.copy_(before)


@torch.no_grad()
def _noisy_texts(objective: DiffusionObjective, batch: Batch, t: Noise) -> tuple[Tensor, Tensor]:
    """Every noisy text that is possible, `[texts, length]`, and its probability, from the score."""
    process = objective.denoiser.process
    states = all_sequences(process.num_states, batch.x0.shape[1])
    each = marginals(process, objective.schedule.alpha(t).flatten())[0][batch.x0, states]
    if batch.given is not None:
        each = torch.where(batch.given, (states == batch.x0).double(), each)
    chances = each.prod(-1)
    return states[chances > 0], chances[chances > 0]


def _pairs(states: Tensor, chances: Tensor) -> list[tuple[Tensor, float]]:
    return list(zip(states, chances.tolist(), strict=True))


def _noised(objective: DiffusionObjective, t: Noise, x_t: Tensor) -> Noised:
    return Noised(x_t, x_t, objective.schedule.alpha(t), objective.schedule.slope(t))


def _mean_loss(objective: DiffusionObjective, batch: Batch, t: Noise) -> float:
    """The mean training loss, without the platform's sums over chunks of rows."""
    states, chances = _noisy_texts(objective, batch, t)
    mean = 0.0
    for x_t, chance in _pairs(states[:, None], chances):
        noised = _noised(objective, t, x_t)
        logits = objective.model.backbone.decoder(objective.features(batch, noised)).flatten(0, 1)
        levels = (level.expand(x_t.shape).flatten() for level in (noised.alpha, noised.slope))
        rows = objective.descended(logits, x_t.flatten(), batch.x0.flatten(), *levels)
        counted = batch.mask & objective.denoiser.process.changeable(x_t)
        mean += chance * float(rows[counted.flatten()].sum())
    return mean
