"""Helpers of all suites: a composition of a given size with random weights, and memory."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from platform_bench import Size
from platform_core.composition.compose import Built, compose
from platform_core.registry.loading import load_plugins
from platform_core.runtime import accelerator as runtime
from platform_core.runtime.speed import peak_device_bytes


def composed(words: Sequence[str], size: Size) -> Built:
    """Build the parts that command-line words name, on backbone dit, in float32.

    The last layer, which starts at zero and would predict a uniform distribution, gets random
    weights here.
    """
    runtime.start("fp32")
    arguments = [*words, "--backbone=dit", f"--backbone.size={size.network}"]
    if size.width is not None:
        arguments.append(f"--backbone.hidden_size={size.width}")
    composition, _ = compose(arguments, load_plugins(), prog="platform bench")
    torch.manual_seed(0)
    built = composition.build(size.states)
    for parameter in built.model.backbone.decoder.parameters():
        nn.init.normal_(parameter, std=0.02)
    return built


def device_of() -> torch.device:
    """The device that training would use."""
    device: torch.device = runtime.start("fp32").device
    return device


def settle() -> None:
    """Waits until a GPU has done what it was asked, so that a clock can be read."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_bytes() -> int:
    """Largest memory of tensors on a GPU so far, or else of this process, in bytes."""
    return peak_device_bytes(device_of()) or runtime.peak_rss_bytes()


def resident_bytes() -> int:
    """Memory now, in bytes: of tensors on a GPU, or else of this process.

    Where the system does not tell it, the peak of this process so far stands in.
    """
    if torch.cuda.is_available():
        return torch.cuda.memory_allocated()
    status = Path("/proc/self/status")
    if not status.exists():
        return runtime.peak_rss_bytes()
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024
