"""Device, precision and threads of a run, chosen by the machine's hardware; and their record."""

import os
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from torch import distributed

from platform_core.errors import UsageError
from platform_core.runtime import ranks

Found = TypeVar("Found")

PACKAGES = (
    "torch",
    "accelerate",
    "datasets",
    "jsonargparse",
    "pluggy",
    "safetensors",
    "aim",
    "transformers",
    "gguf",
    "mauve-text",
)


FP16_FROM = (7, 0)
"""Lowest compute capability of GPUs that multiply fp16 matrices faster than float32: Volta."""

SHARDING = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "tensor or context parallelism",
}
"""Variable of `accelerate launch` -> the way of training that it asks for, which is refused."""


def start(precision: str = "auto") -> Accelerator:
    """The accelerator of this process: a GPU if there is one, else the CPU cores it may use.

    On a GPU, products of float32 matrices use TF32, unless the precision is fp32.

    Raises:
        UsageError: `accelerate launch` asks for a way of sharding or offloading; or the precision
            is fp16 and there is no GPU; or another process of the launch has left with a mistake.
    """
    require_whole_weights()
    if not distributed.is_available() or not distributed.is_initialized():
        ranks.ready()
    cpu = not torch.cuda.is_available()
    if cpu and precision == "fp16":
        raise UsageError(
            "train.precision is fp16, which needs a GPU, and torch sees none; choose "
            "--train.precision auto, bf16 or fp32"
        )
    if not cpu:
        torch.backends.cuda.matmul.allow_tf32 = precision != "fp32"
        torch.backends.cudnn.allow_tf32 = precision != "fp32"
    if cpu and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(available_cores())
    return Accelerator(cpu=cpu, mixed_precision=mixed_precision(precision, cpu=cpu))


def mixed_precision(precision: str, *, cpu: bool) -> str:
    """What accelerate calls a precision; `auto` is decided by the hardware."""
    if precision != "auto":
        return {"fp32": "no"}.get(precision, precision)
    if has_bf16(cpu=cpu):
        return "bf16"
    return "no" if cpu or torch.cuda.get_device_capability() < FP16_FROM else "fp16"


Shared = TypeVar("Shared", bound=Sequence[Any])


def own_share(items: Shared) -> Shared:
    """Those of some items that this process works on: every n-th, the first process the first."""
    rank, processes = _place()
    return items[rank::processes]  # type: ignore[return-value]  # a range or list stays one


def from_all(own: Sequence[Found]) -> list[Found]:
    """What all processes have found of their `own_share`, in the order of the items.

    All processes have to call it.

    Args:
        own: what this process found, one for each of its items; it can be pickled.
    """
    parts: list[Sequence[Found]] = [own] * _place()[1]
    if len(parts) > 1:
        distributed.all_gather_object(parts, own)
    whole: list[Any] = [None] * sum(map(len, parts))
    for rank, part in enumerate(parts):
        whole[rank :: len(parts)] = part
    return whole


def _place() -> tuple[int, int]:
    """The number of this process, from 0, and how many there are."""
    if not distributed.is_available() or not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def require_whole_weights() -> None:
    """Refuses ways of training in which no process has all weights.

    The gradient's norm, the average of the weights and checkpoints are of whole parameters; under
    sharding they would be wrong without an error.

    Raises:
        UsageError: one was asked for.
    """
    for variable, name in SHARDING.items():
        if os.environ.get(variable, "").lower() in {"1", "true"}:
            raise UsageError(
                f"{name} was asked for ({variable}), which training does not support; start one "
                "process for each GPU with torchrun or accelerate launch --multi_gpu, which train "
                "with DDP"
            )


def available_cores() -> int:
    """Processor cores this process may run on, shared among the processes of one machine."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def has_bf16(*, cpu: bool) -> bool:
    """Whether the hardware multiplies bfloat16 matrices natively; emulation is slow."""
    if not cpu:
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and bool({"avx512_bf16", "amx_bf16"} & set(cpuinfo.read_text().split()))


def chosen(accelerator: Accelerator) -> str:
    """The device of a run, why it was chosen, and its precision, in a few words."""
    device = accelerator.device
    many = f", {accelerator.num_processes} processes" if accelerator.num_processes > 1 else ""
    precision = {"no": "fp32"}.get(accelerator.mixed_precision, accelerator.mixed_precision)
    if device.type == "cuda":
        return f"on {torch.cuda.get_device_name(device)}{many}, {precision}"
    threads = torch.get_num_threads()
    return f"on the CPU, because torch sees no GPU: {threads} thread(s){many}, {precision}"


def describe(accelerator: Accelerator, plugins: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What made the numbers of a run: versions, plugins, device, precision, threads.

    Args:
        accelerator: of this process.
        plugins: as `Composition.provenance` says them.
    """
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": dict(versions()),
        "plugins": plugins,
        "device": str(accelerator.device),
        "processes": accelerator.num_processes,
        "precision": accelerator.mixed_precision,
        "threads": torch.get_num_threads(),
    }


@cache
def versions() -> Mapping[str, str]:
    """Versions of the packages that numbers depend on, the platform's own included.

    Read once, since it takes half a second where hundreds of packages are installed.
    """
    own = {
        name: distribution.version
        for distribution in metadata.distributions()
        if (name := distribution.metadata["Name"]) in PACKAGES or name.startswith("dlm-platform")
    }
    return MappingProxyType(dict(sorted(own.items())))


@cache
def commit() -> dict[str, str]:
    """The commit of the platform's own source, if git keeps it; `-dirty` if it was changed since.

    A copy of the platform in an environment that lies in somebody's repository is not of that one.
    """
    here = Path(__file__).resolve()
    asked = (
        ("ls-files", "--error-unmatch", here.name),
        ("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"),
    )
    said = ""
    for words in asked:
        try:
            done = subprocess.run(
                ["git", *words], cwd=here.parent, capture_output=True, text=True, timeout=10
            )
        except (OSError, subprocess.SubprocessError):
            return {}
        if done.returncode:
            return {}
        said = done.stdout.strip()
    return {"commit": said}


def peak_rss_bytes() -> int:
    """Largest resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
