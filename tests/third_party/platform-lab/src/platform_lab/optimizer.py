"""Steps by the sign of the gradient alone, which need no memory."""

from collections.abc import Mapping

import torch
from torch import nn

from platform_core.composition.options import TrainOptions


class Signs(torch.optim.Optimizer):
    """Moves each weight by the learning rate, against the sign of its gradient."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Moves all weights that have a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.sub_(group["lr"] * parameter.grad.sign())


def signs(parameters: Mapping[str, nn.Parameter], options: TrainOptions) -> Signs:
    """The optimizer that `--train.optimizer signs` names."""
    return Signs(parameters.values(), {"lr": options.learning_rate})
