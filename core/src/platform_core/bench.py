"""One training step of DUO, measured in this process.

By rows, dense, or the network alone; and, by rows, of the bound or of the curriculum.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from platform_core import runtime
from platform_core.compose import compose
from platform_core.draws import Draws
from platform_core.objective import DiffusionObjective, Loss
from platform_core.plugins import load_plugins


def measure(path: str, *, states: int, batch: int, length: int, width: int) -> dict[str, float]:
    """Peak memory, what the step added to it, and seconds of one forward and backward pass."""
    runtime.start("fp32")
    case = CASES[path]
    arguments = [f"--backbone.hidden_size={width}", "--process=duo", "--backbone=dit"]
    arguments += case.arguments
    composition, _ = compose(arguments, load_plugins(), prog="platform bench")
    torch.manual_seed(0)
    objective = composition.build(states).objective
    assert isinstance(objective, DiffusionObjective)
    x0 = torch.randint(states, (batch, length))
    draws = Draws.derive(0, step=0, first=0, total=batch)
    before = resident_bytes()
    start = time.perf_counter()
    case.step(objective, x0, draws).backward()  # type: ignore[no-untyped-call]
    return {
        "peak_rss_bytes": runtime.peak_rss_bytes(),
        "step_rss_bytes": runtime.peak_rss_bytes() - before,
        "seconds": time.perf_counter() - start,
    }


def rows_step(objective: DiffusionObjective, x0: Tensor, draws: Draws) -> Tensor:
    """The loss as training computes it."""
    loss: Loss = objective(x0, torch.ones_like(x0, dtype=torch.bool), draws)
    return loss.total


def dense_step(objective: DiffusionObjective, x0: Tensor, draws: Draws) -> Tensor:
    """The same loss from the logits of every position at once."""
    denoiser = objective.denoiser
    t = draws.times(x0.shape[0], objective.t_min)
    alpha, slope = denoiser.schedule.alpha(t), denoiser.schedule.slope(t)
    x_t = denoiser.process.corrupt(x0, alpha, draws.generator)
    logits = objective.model.backbone.decoder(denoiser.encode(x_t, alpha))
    levels = (level.expand(x0.shape) for level in (alpha, slope))
    return objective.row_loss(logits, x_t, x0, *levels).sum()


def network_step(objective: DiffusionObjective, x0: Tensor, draws: Draws) -> Tensor:
    """The network without its last layer, which both paths share."""
    return objective.denoiser.encode(x0, 1 - draws.times(x0.shape[0])).sum()


class Case(NamedTuple):
    """What is measured."""

    step: Callable[[DiffusionObjective, Tensor, Draws], Tensor]
    arguments: tuple[str, ...] = ()
    """Of the command line, beyond the sizes."""


CURRICULUM = ("--objective=curriculum",)

CASES: Mapping[str, Case] = {
    "network": Case(network_step),
    "rows": Case(rows_step),
    "dense": Case(dense_step),
    "curriculum": Case(rows_step, CURRICULUM),
    "curriculum-top-2": Case(rows_step, (*CURRICULUM, "--objective.top_k=2")),
    "curriculum-top-5": Case(rows_step, (*CURRICULUM, "--objective.top_k=5")),
}


def resident_bytes() -> int:
    """Memory of this process now; where the system does not tell, its peak so far."""
    status = Path("/proc/self/status")
    if not status.exists():
        return runtime.peak_rss_bytes()
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024
