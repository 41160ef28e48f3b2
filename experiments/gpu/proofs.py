"""What only a GPU can confirm: results of the plain form, and a host that never waits.

    python experiments/gpu/proofs.py

Each line says what was compared and by how much it differs; the first that is wrong ends the
script. On a CPU, where it is only rehearsed, nothing waits and FlexAttention has no backward pass.
"""

import copy
import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

import platform_bench as bench
from platform_bench.machine import composed, device_of
from platform_core import rows
from platform_core.runtime import network
from platform_core.runtime.network import compile_networks
from platform_core.visibility import same_document
from platform_dit import attention
from platform_dit.backbone import Dit

DEVICE = device_of()
ON_GPU = DEVICE.type == "cuda"
SIZE = bench.Size(states=31, batch=4, length=64, network="tiny", width=None)
FAMILIES = ("duo", "mdlm", "sedd", "d3pm") if ON_GPU else ("mdlm",)


def agree(what: str, found: Tensor, expected: Tensor, allowed: float) -> None:
    """Print the largest difference, and end the script if it is too large."""
    apart = float((found - expected).abs().max() / expected.abs().max())
    print(f"{what}: relative difference {apart:.1e} (allowed: {allowed:g})", flush=True)
    if not apart <= allowed:
        raise SystemExit(f"{what}: the difference is too large")


def waits(run: Callable[[], object]) -> int:
    """How often torch says that the host waits for the GPU."""
    if not ON_GPU:
        run()
        return 0
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("called a synchronizing" in str(one.message) for one in said)


def small(**options: int) -> Dit:
    """A small network on the device, with random weights everywhere."""
    torch.manual_seed(0)
    made = Dit(31, causal=False, time_conditioned=True, **options)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.05)
    return made.to(DEVICE)


def features(backbone: Dit, documents: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Features of random tokens, and the gradient of the first weights where there is one."""
    ids = torch.arange(256, device=DEVICE).view(2, 128) % 31
    apart = None if documents is None else same_document(documents)
    hidden = backbone.encode(ids, torch.full((2, 1), 0.7, device=DEVICE), visibility=apart)
    if not hidden.requires_grad:
        return hidden, None
    (gradient,) = torch.autograd.grad(hidden.square().sum(), [backbone.vocab_embed.embedding])
    return hidden.detach(), gradient


def blocks() -> None:
    """Blocks compiled, and activations computed again, against blocks as they are written."""
    plain = small()
    hidden, gradient = features(plain)
    compiled = copy.deepcopy(plain)
    compile_networks(compiled, True, DEVICE)
    for recomputes in (False, True):
        compiled.recomputes = recomputes
        found, slope = features(compiled)
        agree(f"compiled blocks, recomputes {recomputes}", found, hidden, 1e-4)
        agree(f"compiled blocks, recomputes {recomputes}, gradient", slope, gradient, 1e-3)


def documents() -> None:
    """FlexAttention against a dense mask."""
    attention.FLEX_ON = {DEVICE.type}
    backbone = small(hidden_size=128, num_heads=4)
    numbers = (torch.arange(128, device=DEVICE) // 50).expand(2, -1)
    with torch.set_grad_enabled(ON_GPU):
        found, slope = features(backbone, numbers)
        attention.FLEX_ON = set()
        hidden, gradient = features(backbone, numbers)
    agree("FlexAttention", found, hidden, 1e-3)
    if gradient is not None:
        agree("FlexAttention, gradient", slope, gradient, 1e-2)


def sampling() -> None:
    """Further steps of a sampler make the host wait no more often."""
    rows.STATIC_ON = {DEVICE.type}
    for family in FAMILIES:
        found = []
        for steps in (2, 2, 6):  # the first call warms up
            built = composed([f"--process={family}", f"--sampler.steps={steps}"], SIZE)
            built.model.to(DEVICE).eval()
            generator = torch.Generator(DEVICE).manual_seed(0)
            shape = (SIZE.batch, SIZE.length)
            with torch.no_grad():
                found.append(waits(partial(built.sampler, built.model, shape, generator)))
        print(
            f"{family}: the host waits {found[1]} times in 2 steps and {found[2]} in 6", flush=True
        )
        if found[2] > found[1]:
            raise SystemExit(f"{family}: the host waits in every step")


def main() -> None:
    """Compare and count all of it."""
    torch.backends.cuda.matmul.allow_tf32 = False
    if not ON_GPU:
        # A rehearsal need not wait for a compiler.
        network.COMPILER = "eager"
        attention._flex_kernel = lambda: attention.flex_attention  # type: ignore[assignment]
        warnings.filterwarnings("ignore", "flex_attention called without torch.compile")
    blocks()
    documents()
    sampling()


if __name__ == "__main__":
    main()
