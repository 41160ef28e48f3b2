"""Optimizers: functions of named parameters and training options that return a torch optimizer.

    --train.optimizer adamw | muon | a name that a plugin brings | a class of torch.optim

The trainer sets the learning rate of every group before each update, and keeps the optimizer's
state by parameter. So an optimizer has one learning rate, its state is a dictionary by parameter,
and its `step` needs no closure.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from platform_core.composition.optimizer import OF_TORCH, require_optimizer
from platform_core.composition.options import TrainOptions
from platform_core.errors import UsageError
from platform_core.registry.parts import Plugins

Parameters = Mapping[str, nn.Parameter]
MakeOptimizer = Callable[[Parameters, TrainOptions], torch.optim.Optimizer]
"""What the hook `platform_optimizers` names: trained parameters by name, options -> optimizer."""


def make_optimizer(
    parameters: Parameters, options: TrainOptions, plugins: Plugins
) -> torch.optim.Optimizer:
    """The optimizer that `train.optimizer` names.

    Args:
        parameters: the trained parameters, by name.
        options: the options of the optimisation.
        plugins: where the optimizers come from.

    Raises:
        UsageError: there is no optimizer of that name, or it cannot be used here.
    """
    name = options.optimizer
    require_optimizer(name, plugins)
    if name in plugins.names("optimizer"):
        make: MakeOptimizer = plugins.load("optimizer", name)
        return make(parameters, options)
    return _of_torch(getattr(torch.optim, OF_TORCH[name]), parameters, options)


def decayed(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay applies: to matrices, but not to embeddings, norms and biases."""
    return parameter.ndim >= 2 and "embed" not in name


def groups(parameters: Parameters, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups: all in one without weight decay; else those that decay, and the others."""
    if not weight_decay:
        return [{"params": list(parameters.values())}]
    with_decay = {name for name, parameter in parameters.items() if decayed(name, parameter)}
    found = [
        {
            "params": [p for name, p in parameters.items() if (name in with_decay) is decays],
            "weight_decay": weight_decay if decays else 0.0,
        }
        for decays in (True, False)
    ]
    return [group for group in found if group["params"]]


def adamw(parameters: Parameters, options: TrainOptions) -> torch.optim.Optimizer:
    """AdamW; arXiv:1711.05101."""
    return torch.optim.AdamW(
        groups(parameters, options.weight_decay),
        lr=options.learning_rate,
        betas=(options.beta1, options.beta2),
        eps=options.eps,
        weight_decay=options.weight_decay,
        fused=True,
    )


def muon(parameters: Parameters, options: TrainOptions) -> torch.optim.Optimizer:
    """Muon for the matrices of the network, AdamW for all other parameters.

    Muon's updates are scaled to the root mean square of AdamW's, so that both use one learning
    rate. Source: https://kellerjordan.github.io/posts/muon and arXiv:2502.16982.

    Raises:
        UsageError: this version of torch has no Muon, or the network has no matrix.
    """
    if not hasattr(torch.optim, "Muon"):
        raise UsageError(
            f"train.optimizer is muon, which torch has from 2.9 on, and this is {torch.__version__}"
        )
    matrices = {n: p for n, p in parameters.items() if p.ndim == 2 and decayed(n, p)}
    if not matrices:
        raise UsageError("train.optimizer is muon, and the network has no matrix to train with it")
    others = {name: p for name, p in parameters.items() if name not in matrices}
    first = torch.optim.Muon(
        list(matrices.values()),
        lr=options.learning_rate,
        weight_decay=options.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    return Joint([first, adamw(others, options)] if others else [first])


class Joint(torch.optim.Optimizer):
    """Several optimizers of different parameters, used as one: one list of groups, one state."""

    def __init__(self, optimizers: list[torch.optim.Optimizer]) -> None:
        self._optimizers = optimizers
        super().__init__([group for each in optimizers for group in each.param_groups], {})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of each optimizer."""
        given = iter(self.param_groups)
        for each in self._optimizers:
            # Handed over now, because `load_state_dict` makes new groups and a new state.
            each.param_groups = [next(given) for _ in each.param_groups]
            each.state = self.state
            each.step()


def parts(optimizer: torch.optim.Optimizer) -> list[torch.optim.Optimizer]:
    """The optimizers that an optimizer consists of."""
    return list(optimizer._optimizers) if isinstance(optimizer, Joint) else [optimizer]


def _of_torch(
    kind: type[torch.optim.Optimizer], parameters: Parameters, options: TrainOptions
) -> torch.optim.Optimizer:
    """A class of torch.optim with those of the options that it takes."""
    every = {
        "lr": options.learning_rate,
        "betas": (options.beta1, options.beta2),
        "eps": options.eps,
        "momentum": options.beta1,
        "weight_decay": options.weight_decay,
    }
    takes = inspect.signature(kind).parameters
    given: dict[str, Any] = {name: value for name, value in every.items() if name in takes}
    return kind(groups(parameters, options.weight_decay), **given)
