"""Kernels, waits of the host and bytes of one update and of one sampling step of each family.

update    forward, backward, clipping of the gradient, and AdamW in its fused form
plain     the same with the loss of all logits at once (`families`)
sample    one reverse step, or one more token of ar: what the further steps of a longer call
          cost, divided by their number
"""

from collections.abc import Iterator

import torch

from platform_bench import Case, Figures, Size
from platform_bench.counting import Counting
from platform_bench.families import FAMILIES, backward, prepared
from platform_bench.machine import composed, device_of

TITLE = "dispatched operations of one update and of one sampling step, eager, fp32"

COLUMNS = {
    "kernels": ("kernels", "{:.0f}"),
    "syncs": ("syncs", "{:.1f}"),
    "gigabytes": ("moved GB", "{:.3g}"),
}

SHORT, LONG = 2, 6
"""Reverse steps, or tokens of ar, of the two calls whose difference is shared out."""


def cases(size: Size) -> Iterator[Case]:
    """An update, a plain update and a sampling step of each family."""
    for family in FAMILIES:
        for path in ("update", "plain", "sample"):
            yield Case("counts", f"{family}, {path}", size)


def measure(case: Case) -> Figures:
    """The counts of one case."""
    family, path = case.path.split(", ")
    if path != "sample":
        return figures(update(family, case.size, "plain" if path == "plain" else "ours"))
    short, long = (sampled(family, case.size, number) for number in (SHORT, LONG))
    return {key: (long[key] - short[key]) / (LONG - SHORT) for key in long}


def figures(counting: Counting) -> Figures:
    """The counts as figures of the table."""
    return {
        "kernels": counting.kernels,
        "syncs": counting.syncs,
        "gigabytes": counting.moved / 1e9,
    }


def update(family: str, size: Size, way: str) -> Counting:
    """The counts of the second of two updates; the first makes the optimizer's state."""
    objective, batch = prepared(family, size)
    weights = [weight for weight in objective.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, fused=True)
    for _ in range(2):
        counting = Counting()
        with counting:
            backward(objective, batch, family, way)
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
        optimizer.zero_grad()
    return counting


def sampled(family: str, size: Size, number: int) -> Figures:
    """The counts of a call of the sampler with so many steps, or of so many tokens of ar."""
    words = [f"--process={family}", *([] if family == "ar" else [f"--sampler.steps={number}"])]
    built = composed(words, size)
    built.model.to(device_of()).eval()
    length = number if family == "ar" else size.length
    generator = torch.Generator(device_of()).manual_seed(0)
    with torch.no_grad(), Counting() as counting:
        built.sampler(built.model, (size.batch, length), generator)
    return figures(counting)
