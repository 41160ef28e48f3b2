"""How a network is run: compiled or not, and with activations kept or computed again.

Both are set on the network in place, so that names of its weights stay as they are. Used by
training, and by `platform eval` and `sample`.
"""

import torch
from torch import nn

from platform_core.backbone import Backbone, Blockwise
from platform_core.errors import UsageError

COMPILED_ON = {"cuda"}
"""Kinds of devices on which networks are compiled if nothing else is asked for."""

COMPILER = "inductor"
"""Backend of `torch.compile` for networks."""


def compile_networks(objective: nn.Module, asked: bool | None, device: torch.device) -> None:
    """Compile the networks within an objective, those of teachers too, each when it is first used.

    A `Blockwise` network is compiled block by block; another one as a whole, if asked for.

    Args:
        objective: what holds the networks.
        asked: whether to compile; None for where it pays, which is on a GPU.
        device: of the networks.
    """
    if not (device.type in COMPILED_ON if asked is None else asked):
        return
    for backbone in (module for module in objective.modules() if isinstance(module, Backbone)):
        if isinstance(backbone, Blockwise):
            for block in backbone.stacked():
                block.compile(backend=COMPILER)
        elif asked:
            compiled = torch.compile(backbone.encode, backend=COMPILER)
            backbone.encode = compiled  # type: ignore[method-assign]


def recompute_activations(backbone: Backbone, name: str) -> None:
    """Let a network compute the activations of its blocks again in the backward pass.

    Args:
        backbone: the network.
        name: what users call it.

    Raises:
        UsageError: it does not say what its blocks are.
    """
    if not isinstance(backbone, Blockwise):
        raise UsageError(
            f"train.checkpoint_activations is true, but backbone {name} does not say what its "
            "blocks are (platform_core.backbone.Blockwise); leave the option out, or choose "
            "another backbone, such as dit"
        )
    backbone.recomputes = True
