"""The state of an objective, model included, as groups of tensors: one file of a checkpoint each.

    model           the network, last weights and saved buffers
    ema             the network's averaged weights; frozen ones are in `model` alone
    objective       everything else: weights and buffers of schedule, process and objective
    objective_ema   the averaged weights of what `objective` holds

Only groups that hold something are written: most schedules and objectives have no weights. Names in
`model` and `ema` are those of the backbone, the others those of the objective.
"""

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from platform_core.model import BACKBONE, Tensors

Average = Literal["ema", "raw"]
"""Averaged weights, or the last ones."""

Groups = Mapping[str, Tensors]

ALWAYS = ("model", "ema")
"""Groups of every checkpoint."""


def groups(weights: Tensors, average: Tensors) -> dict[str, Tensors]:
    """The groups of an objective.

    Args:
        weights: every parameter and saved buffer of the objective, by its name there.
        average: the averaged ones among them.
    """
    found = {
        "model": of_backbone(weights),
        "ema": of_backbone(average),
        "objective": _others(weights),
        "objective_ema": _others(average),
    }
    return {name: tensors for name, tensors in found.items() if tensors or name in ALWAYS}


def last(tensors: Groups) -> dict[str, Tensor]:
    """The last weights and the buffers of an objective, by their names there."""
    return _joined(tensors, "model", "objective")


def averaged(tensors: Groups) -> dict[str, Tensor]:
    """The averaged weights of an objective, with the rest of its state, by their names there."""
    return last(tensors) | _joined(tensors, "ema", "objective_ema")


def chosen(tensors: Groups, average: str) -> dict[str, Tensor]:
    """The state of an objective with averaged or last weights, by their names there."""
    return averaged(tensors) if average == "ema" else last(tensors)


def of_backbone(tensors: Tensors) -> dict[str, Tensor]:
    """The tensors of the network, by their names in the backbone."""
    return {n.removeprefix(BACKBONE): t for n, t in tensors.items() if n.startswith(BACKBONE)}


def _others(tensors: Tensors) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(BACKBONE)}


def _joined(tensors: Groups, backbone: str, others: str) -> dict[str, Tensor]:
    named = {BACKBONE + name: tensor for name, tensor in tensors.get(backbone, {}).items()}
    return named | dict(tensors.get(others, {}))
