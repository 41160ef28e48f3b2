"""One training step of DUO: by rows, dense, or the network alone; then by rows at twice each size.

The network alone is what the other two paths share: everything but the last layer and the loss.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from platform_bench import Case, Figures, Size
from platform_bench.machine import composed, device_of, peak_bytes, resident_bytes, settle
from platform_core.draws import Draws
from platform_core.objective import DiffusionObjective, Loss
from platform_core.types import Batch

Step = Callable[[DiffusionObjective, Tensor, Draws], Tensor]

TITLE = "one training step of process duo (forward and backward), fp32"

COLUMNS = {
    "peak_gigabytes": ("peak GB", "{:.3g}"),
    "step_gigabytes": ("step GB", "{:.3g}"),
    "seconds": ("seconds", "{:.2f}"),
}


def cases(size: Size) -> Iterator[Case]:
    """All paths, then the paths "rows" and "network" with each size doubled in turn."""
    for path in ("dense", "rows", "network"):
        yield Case("training", path, size)
    for name in ("batch", "length", "states"):
        doubled = replace(size, **{name: 2 * getattr(size, name)})
        for path in ("rows", "network"):
            yield Case("training", path, doubled)


def measure(case: Case) -> Figures:
    """Peak memory, memory that the step added, and seconds of one forward and backward pass."""
    return measure_step(PATHS[case.path], [], case.size)


def measure_step(step: Step, words: Sequence[str], size: Size) -> Figures:
    """Measure one step that `step` makes, like `measure`, with further command-line words."""
    objective = composed(["--process=duo", *words], size).objective.to(device_of())
    assert isinstance(objective, DiffusionObjective)
    x0 = torch.randint(size.states, (size.batch, size.length)).to(device_of())
    draws = Draws.derive(0, step=0, first=0, total=size.batch, device=device_of())
    before = resident_bytes()
    start = time.perf_counter()
    step(objective, x0, draws).backward()  # type: ignore[no-untyped-call]
    settle()
    seconds = time.perf_counter() - start
    return {
        "peak_gigabytes": peak_bytes() / 1e9,
        "step_gigabytes": (peak_bytes() - before) / 1e9,
        "seconds": seconds,
    }


def rows_step(objective: DiffusionObjective, x0: Tensor, draws: Draws) -> Tensor:
    """The loss of a batch as training computes it."""
    loss: Loss = objective(Batch(x0, torch.ones_like(x0, dtype=torch.bool)), draws)
    return loss.total


def dense_step(objective: DiffusionObjective, x0: Tensor, draws: Draws) -> Tensor:
    """The loss of `rows_step`, computed from the logits of every position at once."""
    denoiser = objective.denoiser
    t = draws.times(x0.shape[0], objective.t_min)
    alpha, slope = denoiser.schedule.alpha(t), denoiser.schedule.slope(t)
    x_t = draws.each(denoiser.process.corrupt, x0, alpha)
    logits = objective.model.backbone.decoder(denoiser.encode(x_t, alpha))
    levels = (level.expand(x0.shape) for level in (alpha, slope))
    return objective.row_loss(logits, x_t, x0, *levels).sum()


def network_step(objective: DiffusionObjective, x0: Tensor, draws: Draws) -> Tensor:
    """The network without its last layer, which both paths share."""
    return objective.denoiser.encode(x0, 1 - draws.times(x0.shape[0])).sum()


PATHS = {"network": network_step, "rows": rows_step, "dense": dense_step}
