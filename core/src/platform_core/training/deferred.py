"""Updates whose figures the host reads later, so that it never waits for the device in between.

    open_k = open_{k-1} and the gradient of update k is finite        decided on the device

An update that is not let through leaves weights, optimizer and average as they were, and so does
every later one until the host reads the figures, finds the first update that was held back, and
ends the training with the weights from before it. Used by `trainer`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor

from platform_core.training.optimizers import parts

DEFERRED_ON = {"cuda"}
"""Kinds of devices on which figures are read later; elsewhere reading costs nothing."""

MOST_UNREAD = 100
"""Number of updates after which figures are read in any case."""


@dataclass(frozen=True)
class Launched:
    """The figures of an update that the device may not have made yet."""

    step: int
    """Number of the update, counted from 0."""
    loss: Tensor
    """Nats of this process's tokens, a float64 scalar."""
    gradient_norm: Tensor
    tokens: Tensor
    """Number of tokens that count, of all processes."""
    learning_rate: float
    waiting: float
    """Seconds until the data were there."""


def read(launched: Sequence[Launched], accelerator: Accelerator) -> list[tuple[float, float, int]]:
    """Loss per token, norm of the gradient and number of tokens of each update.

    All processes call this at the same update. It is one collective, and one wait of the host.
    """
    losses = accelerator.reduce(torch.stack([one.loss for one in launched]))
    tokens = torch.stack([one.tokens for one in launched])
    norms = torch.stack([one.gradient_norm for one in launched])
    columns = (losses / tokens).double(), norms.double(), tokens.double()
    return [(loss, norm, int(number)) for loss, norm, number in torch.stack(columns, 1).tolist()]


class Gate:
    """Lets optimizer steps through while all gradients were finite.

    Args:
        device: of the weights.
    """

    def __init__(self, device: torch.device) -> None:
        self.open = torch.ones((), dtype=torch.bool, device=device)

    def look(self, gradient_norm: Tensor) -> None:
        """Shuts if the gradient is not finite; a gate that is shut stays so."""
        self.open = self.open & gradient_norm.isfinite()

    @torch.no_grad()
    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """One step of an optimizer that `can_hold_back`; if shut, it changes nothing."""
        kept = []
        asked = [part for part in parts(optimizer) if _takes_flag(part)]
        for part in parts(optimizer):
            if part not in asked:
                kept += [(tensor, tensor.clone()) for tensor in _changed(part, optimizer)]
        for part in asked:
            part.found_inf = (~self.open).float()  # type: ignore[attr-defined]
        try:
            optimizer.step()
        finally:
            for part in asked:
                del part.found_inf  # type: ignore[attr-defined]
        for tensor, before in kept:
            tensor.copy_(torch.where(self.open, tensor, before))


def can_hold_back(optimizer: torch.optim.Optimizer) -> bool:
    """Whether `Gate.step` can undo all that a step of this optimizer changes.

    It can for those of torch that take a flag (AdamW in its fused form), and for others of torch
    once their state is there and on the device of the weights. Some count their steps on the host.
    """
    for part in parts(optimizer):
        if not type(part).__module__.startswith("torch.optim"):
            return False
        if _takes_flag(part):
            continue
        for parameter in _with_gradient(part):
            state = optimizer.state.get(parameter)
            if not state or not all(_is_on(value, parameter.device) for value in state.values()):
                return False
    return True


def _takes_flag(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the optimizer's kernel reads `found_inf`, as it does for a scaler of gradients."""
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))


def _with_gradient(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    for group in optimizer.param_groups:
        yield from (parameter for parameter in group["params"] if parameter.grad is not None)


def _changed(part: torch.optim.Optimizer, whole: torch.optim.Optimizer) -> Iterator[Tensor]:
    """The tensors that a step of one part changes; the state is that of the whole optimizer."""
    for parameter in _with_gradient(part):
        yield parameter
        yield from whole.state[parameter].values()


def _is_on(value: object, device: torch.device) -> bool:
    return isinstance(value, Tensor) and value.device == device
