"""The callback: code that runs after each logged update of training.

    update -> Progress -> after_update -> Reaction: figures, the wish to stop, a checkpoint to keep

`state` returns what a callback remembers between updates, so that a resumed training continues as
if it had never stopped.
"""

import math
import time
from collections.abc import Mapping
from typing import Any, final

from platform_core.callback import Callback, Progress, Reaction


@final
class NewPart(Callback):
    """Ends a training after a number of minutes.

    Args:
        minutes: minutes of training, summed over all starts of the run.

    Raises:
        ValueError: minutes is not a finite number above 0.
    """

    def __init__(self, minutes: float = 60.0) -> None:
        if not 0 < minutes < math.inf:
            raise ValueError(f"minutes is {minutes:g}; it must be a number above 0")
        self.minutes, self.before, self.started = minutes, 0.0, time.monotonic()

    def begin(self, progress: Progress) -> None:
        self.started = time.monotonic()

    def after_update(self, progress: Progress) -> Reaction:
        taken = self.taken()
        stop = f"{taken:.1f} minutes have passed" if taken >= self.minutes else ""
        return Reaction({"minutes": taken}, stop=stop)

    def taken(self) -> float:
        """Minutes of training so far."""
        return self.before + (time.monotonic() - self.started) / 60

    def state(self) -> Mapping[str, Any]:
        return {"minutes": self.taken()}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.before, self.started = float(state["minutes"]), time.monotonic()
