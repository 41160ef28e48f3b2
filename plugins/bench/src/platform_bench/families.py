"""One training step of each family: as training makes it, plainly, and by torch's own last layer.

ours     by rows, in chunks, with gradients computed in the forward pass
plain    the same loss from the logits of all its rows at once, differentiated by autograd
torch    `torch.nn.functional.linear_cross_entropy` of the same rows, where the loss is a
         cross-entropy (for mdlm without its weights)
"""

import time
from collections.abc import Callable, Iterator
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional

from platform_bench import Case, Figures, Size
from platform_bench.machine import composed, device_of, peak_bytes, resident_bytes, settle
from platform_core import rows
from platform_core.draws import Draws
from platform_core.objective import Loss, Objective
from platform_core.types import Batch, Hidden, Nats

TITLE = "one training step of each family (forward and backward), fp32"

COLUMNS = {
    "peak_gigabytes": ("peak GB", "{:.3g}"),
    "step_gigabytes": ("step GB", "{:.3g}"),
    "seconds": ("seconds", "{:.2f}"),
}

FAMILIES = ("duo", "mdlm", "sedd", "ar", "d3pm")
"""Processes whose steps are measured, each with its default objective."""

CROSS_ENTROPIES = {"mdlm": 1, "ar": 0}
"""Families whose loss is a cross-entropy, and the number of its column of clean tokens."""

STEPS = 3
"""Steps of which the quickest counts; the memory is what the first of them added."""


def cases(size: Size) -> Iterator[Case]:
    """The ways of each family in turn."""
    for family in FAMILIES:
        for way in ("ours", "plain"):
            yield Case("families", f"{family}, {way}", size)
        if family in CROSS_ENTROPIES and hasattr(functional, "linear_cross_entropy"):
            yield Case("families", f"{family}, torch", size)


def measure(case: Case) -> Figures:
    """Peak memory, memory that the first step added, and seconds of the quickest step."""
    family, way = case.path.split(", ")
    objective, batch = prepared(family, case.size)
    before, seconds, added = resident_bytes(), [], 0
    for _ in range(STEPS):
        start = time.perf_counter()
        backward(objective, batch, family, way)
        settle()
        seconds.append(time.perf_counter() - start)
        added = added or peak_bytes() - before
        objective.zero_grad()
    return {
        "peak_gigabytes": peak_bytes() / 1e9,
        "step_gigabytes": added / 1e9,
        "seconds": min(seconds),
    }


def prepared(family: str, size: Size) -> tuple[Objective, Batch]:
    """The objective of a family on the device at hand, and a batch of random tokens."""
    objective = composed([f"--process={family}"], size).objective.to(device_of())
    x0 = torch.randint(size.states, (size.batch, size.length)).to(device_of())
    every = torch.ones_like(x0, dtype=torch.bool)
    return objective, Batch(x0, every, full=every)


def backward(objective: Objective, batch: Batch, family: str, way: str) -> Tensor:
    """Adds the gradients of one step to the parameters; returns the loss, in nats."""
    draws = Draws.derive(0, step=0, first=0, total=len(batch.x0), device=batch.x0.device)
    states = objective.model.process.vocab_size
    ours: Callable[..., tuple[Tensor, Nats]] = rows.weighted_sum
    ways = {"ours": ours, "plain": plain_sum, "torch": torch_sum(family, states)}
    with patch.object(rows, "weighted_sum", ways[way]):
        loss: Loss = objective(batch, draws)
    loss.total.backward()  # type: ignore[no-untyped-call]
    return loss.total.detach()


def plain_sum(
    decoder: nn.Module,
    loss: rows.RowLoss,
    hidden: Hidden,
    columns: tuple[Tensor, ...],
    *,
    num_states: int,
    decodes: bool = False,
) -> tuple[Tensor, Nats]:
    """`rows.weighted_sum` from all logits at once, through autograd alone."""
    values = loss(decoder(hidden), *columns).float()
    return values.double().sum(), values.detach()


def torch_sum(family: str, states: int) -> Callable[..., tuple[Tensor, Nats]]:
    """A stand-in for `rows.weighted_sum`: torch's cross-entropy of so many states."""
    column = CROSS_ENTROPIES.get(family, 0)

    def total(
        decoder: nn.Module,
        loss: rows.RowLoss,
        hidden: Hidden,
        columns: tuple[Tensor, ...],
        **_: object,
    ) -> tuple[Tensor, Nats]:
        assert isinstance(decoder, nn.Linear), "backbone dit ends in a linear layer"
        bias = None if decoder.bias is None else decoder.bias[:states]
        values = functional.linear_cross_entropy(
            hidden, decoder.weight[:states], columns[column], linear_bias=bias, reduction="none"
        )
        return values.double().sum(), values.detach()

    return total
