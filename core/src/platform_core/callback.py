"""Callbacks: what sees each update of a training, and may log figures or ask it to stop.

    update -> Progress -> Callback.after_update, after_look -> figures, or the wish to stop

A callback is a class with typed options, chosen with `--callbacks NAME,...` or by any option of its
own, `--callbacks.NAME.OPTION VALUE`. What it keeps between updates is part of every checkpoint,
so that a resumed run goes on exactly.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Figures = Mapping[str, float]
"""Numbers by name, as they are written to metrics.jsonl and shown by trackers."""


@dataclass(frozen=True)
class Progress:
    """Where a training is.

    Args:
        step: updates that were made.
        steps: updates that were asked for.
        figures: of this update or look: `loss` in nats per token and the like after an update;
            `nats_per_token`, `bits_per_character` and others of held-out text after a look.
    """

    step: int
    steps: int
    figures: Figures


@dataclass(frozen=True)
class Reaction:
    """What a callback makes of what it saw.

    Args:
        figures: written to metrics.jsonl and to trackers, under the subset `callbacks`.
        stop: a sentence that says why the training should end here; empty to go on.
        keep: whether the weights of this step are worth keeping beside the latest checkpoints.
    """

    figures: Mapping[str, float] | None = None
    stop: str = ""
    keep: bool = False


NOTHING = Reaction()
"""The reaction of a callback that has nothing to say."""


class Callback:
    """Sees a training as it goes on; every method may be left out.

    All processes of a run call the same methods with the same figures, so a callback that decides
    from these decides alike everywhere.
    """

    def begin(self, progress: Progress) -> None:
        """Before the first update of this start, also of a resumed run."""

    def after_update(self, progress: Progress) -> Reaction:
        """After an update whose figures are logged (`--train.log_every`)."""
        return NOTHING

    def after_look(self, progress: Progress) -> Reaction:
        """After a bound on held-out text (`--train.evaluate_every`)."""
        return NOTHING

    def state(self) -> Mapping[str, Any]:
        """Plain values that a checkpoint keeps."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up the values that `state` gave."""
