"""The callbacks of core, early stopping and best checkpoint, and the group of a run's callbacks."""

import math
from collections.abc import Mapping
from typing import Any, final

from platform_core.callback import NOTHING, Callback, Progress, Reaction
from platform_core.errors import UsageError, did_you_mean


class Watchers:
    """The callbacks of a run, called as a group.

    Args:
        callbacks: callbacks by name, in their state before training.
    """

    def __init__(self, callbacks: Mapping[str, Callback]) -> None:
        self.callbacks = callbacks
        self.stopped = ""
        """Why the training ended before its last update; empty if it did not."""
        self.kept: dict[str, int] = {}
        """Name of a callback -> the step of the checkpoint that it keeps."""

    def begin(self, progress: Progress) -> None:
        """Tells every callback that updates are about to be made."""
        for callback in self.callbacks.values():
            callback.begin(progress)

    def after_update(self, progress: Progress) -> Reaction:
        """The joint reaction of all callbacks to an update."""
        found = {name: each.after_update(progress) for name, each in self.callbacks.items()}
        return self._joined(found, progress)

    def after_look(self, progress: Progress) -> Reaction:
        """The joint reaction of all callbacks to a bound on held-out text."""
        found = {name: each.after_look(progress) for name, each in self.callbacks.items()}
        return self._joined(found, progress)

    def state(self) -> Mapping[str, Any]:
        """The state of all callbacks, as plain values for a checkpoint."""
        own = {name: dict(callback.state()) for name, callback in self.callbacks.items()}
        return {"own": own, "stopped": self.stopped, "kept": self.kept}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restores a value of `state`; a callback that is missing there starts anew."""
        for name, values in state.get("own", {}).items():
            if name in self.callbacks:
                self.callbacks[name].restore(values)
        self.kept = {n: int(step) for n, step in state.get("kept", {}).items()}
        self.stopped = str(state.get("stopped", "")) if self.callbacks else ""

    def _joined(self, reactions: Mapping[str, Reaction], progress: Progress) -> Reaction:
        """Joins reactions to one; names of figures get the callback's name in front."""
        figures = {}
        for name, reaction in reactions.items():
            for figure, value in (reaction.figures or {}).items():
                figures[f"{name}/{figure}"] = value
            if reaction.stop and not self.stopped:
                self.stopped = f"{name}: {reaction.stop}"
            if reaction.keep:
                self.kept[name] = progress.step
        keep = any(reaction.keep for reaction in reactions.values())
        return Reaction(figures, self.stopped, keep)


def require_number(name: str, figures: Mapping[str, float]) -> float:
    """The figure of that name.

    Raises:
        UsageError: there is no figure of that name.
    """
    if name not in figures:
        known = ", ".join(sorted(figures))
        raise UsageError(
            f"a callback watches the figure {name!r}, but runs measure {known}"
            f"{did_you_mean(name, figures)}"
        )
    return figures[name]


class Lowest:
    """The lowest value of a figure so far, and the step it was seen at."""

    def __init__(self, figure: str) -> None:
        self.figure, self.value, self.step = figure, math.inf, 0

    def improves(self, progress: Progress, *, by: float = 0.0) -> bool:
        """Whether the figure is below its lowest value by more than `by`; if so, stores it."""
        value = require_number(self.figure, progress.figures)
        if not value < self.value - by:
            return False
        self.value, self.step = value, progress.step
        return True

    def state(self) -> Mapping[str, Any]:
        """The value and its step for a checkpoint; empty before the first value."""
        return {} if math.isinf(self.value) else {"value": self.value, "step": self.step}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restores a value of `state`."""
        if state:
            self.value, self.step = float(state["value"]), int(state["step"])


@final
class EarlyStopping(Callback):
    """Ends the training when a figure of held-out text stops getting lower.

    Args:
        figure: the figure to watch, of those that evaluations (--train.evaluate_every) measure,
            such as bits_per_character or nats_per_token.
        patience: evaluations without improvement after which the training ends.
        min_delta: a decrease by more than this, in the figure's unit, is an improvement.

    Raises:
        ValueError: patience is below 1, or min_delta below 0.
    """

    def __init__(
        self, figure: str = "nats_per_token", patience: int = 3, min_delta: float = 0.0
    ) -> None:
        if patience < 1:
            raise ValueError(f"patience is {patience}; it must be at least 1")
        if not 0 <= min_delta < math.inf:
            raise ValueError(f"min_delta is {min_delta:g}; it must be a number of at least 0")
        self.patience, self.min_delta = patience, min_delta
        self.lowest, self.waited = Lowest(figure), 0

    def after_look(self, progress: Progress) -> Reaction:
        self.waited = 0 if self.lowest.improves(progress, by=self.min_delta) else self.waited + 1
        figures = {"looks_without_improvement": float(self.waited)}
        if self.waited < self.patience:
            return Reaction(figures)
        return Reaction(
            figures,
            stop=f"{self.lowest.figure} has not improved for {self.waited} evaluations since "
            f"{self.lowest.value:.4f} at step {self.lowest.step}",
        )

    def state(self) -> Mapping[str, Any]:
        return {"waited": self.waited, "lowest": self.lowest.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.waited = int(state["waited"])
        self.lowest.restore(state["lowest"])


@final
class BestCheckpoint(Callback):
    """Keeps the checkpoint with the lowest figure of held-out text beside the latest ones.

    Args:
        figure: the figure to compare, of those that evaluations (--train.evaluate_every) measure,
            such as bits_per_character or nats_per_token.
    """

    def __init__(self, figure: str = "nats_per_token") -> None:
        self.lowest = Lowest(figure)

    def after_look(self, progress: Progress) -> Reaction:
        if not self.lowest.improves(progress):
            return NOTHING
        return Reaction({f"lowest_{self.lowest.figure}": self.lowest.value}, keep=True)

    def state(self) -> Mapping[str, Any]:
        return self.lowest.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        self.lowest.restore(state)
