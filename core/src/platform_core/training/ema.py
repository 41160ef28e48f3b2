"""The exponential moving average of the weights, which evaluation and sampling use."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class Ema:
    """The exponential moving average (shadow) of named parameters.

        d = min(decay, (1 + n) / (10 + n)) at the n-th update;  shadow += (1 - d) (live - shadow)

    Args:
        parameters: the live parameters; the shadow starts as their copy.
        decay: limit of the decay; 0 makes the shadow equal to the parameters.

    Source: the published code of MDLM and DUO, which took it from score-based diffusion models.
    """

    def __init__(self, parameters: Mapping[str, Tensor], decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(
                f"ema_decay is {decay:g}; it must be at least 0 (no average) and below 1"
            )
        self.decay = decay
        self.updates = 0
        self._live = dict(parameters)
        self.shadow = {name: parameter.detach().clone() for name, parameter in self._live.items()}

    @torch.no_grad()
    def update(self, passed: Tensor | None = None) -> None:
        """Moves the shadow towards the live parameters, after an optimizer step.

        Args:
            passed: a boolean scalar on the device, whether the step was made; the shadow stays
                where it is if not. None for a step that was made.
        """
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        live = [self._live[name].detach() for name in self.shadow]
        shadow = list(self.shadow.values())
        # One launch for all parameters on a GPU; on a CPU the same loop as before.
        if shadow and passed is None:
            torch._foreach_lerp_(shadow, live, 1 - decay)
        elif shadow and passed is not None:
            _move(shadow, live, 1 - decay, passed)

    def restore(self, shadow: Mapping[str, Tensor], updates: int) -> None:
        """Restores a saved average and its number of updates."""
        for name, tensor in self.shadow.items():
            tensor.copy_(shadow[name])
        self.updates = updates

    @contextmanager
    @torch.no_grad()
    def applied(self) -> Iterator[None]:
        """The live parameters hold the average while the context lasts."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for name, shadow in self.shadow.items():
            live = self._live[name]
            kept = live.detach().clone()
            live.copy_(shadow)
            shadow.copy_(kept)


def _move(shadow: list[Tensor], live: list[Tensor], share: float, passed: Tensor) -> None:
    """The same as `torch._foreach_lerp_`, bit for bit, or nothing if the step did not pass."""
    if share >= 0.5:  # where lerp is live - (live - shadow) (1 - share), as in the first updates
        for average, parameter in zip(shadow, live, strict=True):
            average.lerp_(parameter, share * passed.to(average.dtype))
        return
    apart = torch._foreach_sub(live, shadow)
    torch._foreach_mul_(apart, passed.to(apart[0].dtype))
    torch._foreach_add_(shadow, apart, alpha=share)
