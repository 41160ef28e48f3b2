"""Helpers of all suites: a composition of a given size with random weights, and memory."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from platform_bench import Size
from platform_core.composition.compose import Built, compose
from platform_core.registry.loading import load_plugins
from platform_core.runtime import accelerator as runtime


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


def resident_bytes() -> int:
    """Memory of this process now, in bytes; its peak so far where the system tells no more."""
    status = Path("/proc/self/status")
    if not status.exists():
        return runtime.peak_rss_bytes()
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024
