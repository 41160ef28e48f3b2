"""A small network and what it computes; as a script, the same compiled block by block.

python dit_blocks.py eager | aot_eager | inductor
"""

import copy
import sys

import torch
from torch import Tensor, nn

from platform_core.runtime import network
from platform_core.runtime.network import compile_networks
from platform_core.visibility import same_document
from platform_dit.backbone import Dit


def dit(causal: bool = False, dropout: float = 0.3, **options: int) -> Dit:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_blocks": 3, "num_heads": 2, "cond_size": 8} | options
    made = Dit(7, causal=causal, time_conditioned=not causal, dropout=dropout, **sizes)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.2)
    return made


def read(backbone: Dit, causal: bool, seed: int = 3) -> tuple[Tensor, list[Tensor]]:
    """Features of random documents, and gradients, with dropout of a given seed."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(7, (4, 6), generator=generator)
    sigma = None if causal else torch.rand(4, 1, generator=generator)
    torch.manual_seed(seed)
    hidden = backbone.encode(
        ids, sigma, visibility=same_document(torch.arange(6).expand(4, 6) // 3)
    )
    weights = [p for name, p in backbone.named_parameters() if "linear" not in name]
    after = torch.rand(3)  # what is drawn after a step must not change either
    return torch.cat((hidden.flatten(), after)), list(torch.autograd.grad(hidden.sum(), weights))


def compare(causal: bool) -> None:
    """Compiled blocks against those as they are written, with and without kept activations."""
    backbone = dit(causal, dropout=0.0)
    names = list(backbone.state_dict())
    hidden, gradients = read(backbone, causal)
    compile_networks(backbone, True, torch.device("cpu"))
    for recomputes in (False, True):
        backbone.recomputes = recomputes
        again, others = read(backbone, causal)
        torch.testing.assert_close(again, hidden)
        torch.testing.assert_close(others, gradients, rtol=1e-4, atol=1e-5)
    assert list(backbone.state_dict()) == names
    copied, _ = read(copy.deepcopy(backbone), causal)
    torch.testing.assert_close(copied, hidden)
    compiled = sum(block._compiled_call_impl is not None for block in backbone.stacked())
    print(f"causal {causal}: {compiled} blocks alike")


if __name__ == "__main__":
    network.COMPILER = sys.argv[1]
    compare(causal=True)
    compare(causal=False)
