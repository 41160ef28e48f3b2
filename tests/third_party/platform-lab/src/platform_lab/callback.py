"""A training that ends at a loss instead of after some updates."""

import math
from collections.abc import Mapping
from typing import Any, final

from platform_core.callback import Callback, Progress, Reaction


@final
class LossBelow(Callback):
    """Ends the training once its loss has stayed below a value.

    Args:
        loss: the value, in nats per token.
        updates: how many logged updates (--train.log_every) in a row have to be below it.

    Raises:
        ValueError: loss is not above 0, or updates below 1.
    """

    def __init__(self, loss: float = 1.0, updates: int = 3) -> None:
        if not 0 < loss < math.inf:
            raise ValueError(f"loss is {loss:g}; it must be a number above 0")
        if updates < 1:
            raise ValueError(f"updates is {updates}; it must be at least 1")
        self.loss, self.updates, self.below = loss, updates, 0

    def after_update(self, progress: Progress) -> Reaction:
        """Counts the updates in a row."""
        self.below = self.below + 1 if progress.figures["loss"] < self.loss else 0
        stop = ""
        if self.below >= self.updates:
            stop = f"the loss was below {self.loss:g} for {self.below} logged updates"
        return Reaction({"updates_below": float(self.below)}, stop=stop)

    def state(self) -> Mapping[str, Any]:
        """The count."""
        return {"below": self.below}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on counting."""
        self.below = int(state["below"])
