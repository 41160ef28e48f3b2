"""How fast a training is, against what the device can do: FLOP, utilisation, memory, a profile.

Floating-point operations (FLOP) are those of the network's matrix products, of all positions, three
times over: once forwards and twice backwards (arXiv:2204.02311, appendix B). What an objective
leaves out or computes again does not count, so that figures of different objectives compare.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from platform_core.backbone import Backbone
from platform_core.record.files import write_text

TRAINING = 3
"""FLOP of a training step for each FLOP forwards."""

PEAKS = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "B200": 2250e12,
    "A100": 312e12,
    "A10G": 70e12,
    "L40S": 362e12,
    "L4": 121e12,
    "V100": 125e12,
}
"""Part of a GPU's name -> FLOP/s of dense products in bf16 (V100: fp16), from its data sheet."""

SKIPPED = 3
"""Updates before a profile begins, in which memory is allocated and kernels are chosen."""


def training_flops(
    backbone: Backbone, length: int, *, time_conditioned: bool, labelled: bool = False
) -> float | None:
    """FLOP of a training step for each token; None for a network that cannot be counted.

    Nothing is computed: the network is called on tensors without memory.

    Args:
        backbone: the network.
        length: tokens of a sequence.
        time_conditioned: whether the network is told the noise level.
        labelled: whether it is told a label.
    """
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with _eager(backbone), torch.device("meta"), torch.no_grad(), counter:
        ids = torch.zeros(1, length, dtype=torch.long)
        sigma = torch.zeros(1, 1) if time_conditioned else None
        labels = (torch.zeros(1, dtype=torch.long),) if labelled else ()
        try:
            logits = _without_memory(backbone, ids, sigma, *labels)
        except Exception:  # Networks of plugins may read their tensors, which have no values here.
            return None
    assert isinstance(logits, Tensor)
    return TRAINING * counter.get_total_flops() / length


def _eager(backbone: Backbone) -> AbstractContextManager[object]:
    """Compiled blocks are called as they were written; without any, the compiler is not loaded."""
    if all(module._compiled_call_impl is None for module in backbone.modules()):
        return nullcontext()
    eager: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return eager


def _without_memory(backbone: Backbone, *inputs: Tensor | None) -> object:
    named = [*backbone.named_parameters(), *backbone.named_buffers()]
    state = {name: tensor.detach().to("meta") for name, tensor in named}
    state = {f"backbone.{name}": tensor for name, tensor in state.items()}
    return functional_call(_Whole(backbone), state, inputs)


class _Whole(nn.Module):
    """A network from tokens to logits."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, *inputs: Any) -> object:
        encode = type(self.backbone).encode  # not the compiled one
        return self.backbone.decoder(encode(self.backbone, *inputs))


def peak_flops(device: torch.device) -> float | None:
    """FLOP/s that a device can do at most, by its data sheet; None if it is not known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAKS.items() if part in name), None)


def peak_device_bytes(device: torch.device) -> int | None:
    """Largest memory of tensors on a GPU so far, in bytes; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


@contextmanager
def profiled(updates: int, folder: Path) -> Iterator[Callable[[], None]]:
    """A profile of so many updates, after the first `SKIPPED`, written into a folder.

        trace.json    for https://ui.perfetto.dev or chrome://tracing
        table.txt     the dearest operations

    Args:
        updates: number of updates; 0 for no profile.
        folder: where it is written; made if need be.

    Yields:
        What to call after each update.
    """
    if not updates:
        yield lambda: None
        return
    from torch.profiler import profile, schedule

    written = False

    def write(found: profile) -> None:
        nonlocal written
        written = True
        folder.mkdir(parents=True, exist_ok=True)
        on_gpu = torch.cuda.is_available()
        order = "self_cuda_time_total" if on_gpu else "self_cpu_time_total"
        write_text(folder / "table.txt", found.key_averages().table(sort_by=order, row_limit=40))
        found.export_chrome_trace(str(folder / "trace.json"))

    plan = schedule(wait=SKIPPED - 1, warmup=1, active=updates, repeat=1)
    with profile(schedule=plan, on_trace_ready=write, record_shapes=False) as found:
        yield found.step
    assert written or found.step_num <= SKIPPED, "a profile that began was written"
