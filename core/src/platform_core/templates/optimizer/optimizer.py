"""The optimizer: how the gradient changes the weights.

    parameters by name, options of training -> new_part -> optimizer -> step, step, ...

The trainer sets the learning rate (`lr`) of every group before each step. What the optimizer
remembers of a parameter is in `state[parameter]`, as tensors by name: the trainer saves them in
every checkpoint, so that a resumed training continues as if it had never stopped.
"""

from collections.abc import Mapping
from typing import final

import torch
from torch import nn

from platform_core.composition.options import TrainOptions
from platform_core.training.optimizers import groups


@final
class NewPart(torch.optim.Optimizer):
    """Steps of one size in the direction of the averaged gradient's sign (Lion; arXiv:2302.06675).

    Args:
        parameters: groups of parameters, each with its own `weight_decay` if it has one.
        lr: the step of each weight.
        betas: decays of the average that gives the direction, and of the average that is kept.
        weight_decay: share of each weight, times `lr`, that a step takes off.
    """

    def __init__(
        self,
        parameters: list[dict[str, object]],
        lr: float,
        betas: tuple[float, float],
        weight_decay: float,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Changes every parameter that has a gradient."""
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                average = state.setdefault("average", torch.zeros_like(parameter))
                direction = average.lerp(parameter.grad, 1 - beta1).sign()
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.sub_(group["lr"] * direction)
                average.lerp_(parameter.grad, 1 - beta2)


def new_part(parameters: Mapping[str, nn.Parameter], options: TrainOptions) -> NewPart:
    """The optimizer that `platform run --train.optimizer new-part` names.

    Args:
        parameters: the trained parameters, by name.
        options: the options of the section train.
    """
    return NewPart(
        groups(parameters, options.weight_decay),
        options.learning_rate,
        (options.beta1, options.beta2),
        options.weight_decay,
    )
