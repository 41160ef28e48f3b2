"""Callbacks: classes that observe training, and may log figures or ask training to stop.

    Progress -> Callback.after_update, Callback.after_look -> Reaction

A callback is a class with typed options, chosen with `--callbacks NAME,...` or by setting one of
its options, `--callbacks.NAME.OPTION VALUE`. The state of a callback is saved in every checkpoint,
so that a resumed run continues exactly.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Figures = Mapping[str, float]
"""Numbers by name, as they are written to metrics.jsonl and shown by trackers."""


@dataclass(frozen=True)
class Progress:
    """Progress of training, with figures of the latest update or held-out evaluation.

    Args:
        step: number of updates made so far.
        steps: number of updates that the run was asked for.
        figures: after an update, its `loss` in nats per token and similar figures; after an
            evaluation of held-out text, `nats_per_token`, `bits_per_character` and others.
    """

    step: int
    steps: int
    figures: Figures


@dataclass(frozen=True)
class Reaction:
    """Answer of a callback to an update or a held-out evaluation.

    Args:
        figures: numbers to write to metrics.jsonl and to trackers, under the subset `callbacks`.
        stop: a sentence that says why training should end here; empty to continue.
        keep: whether to keep the weights of this step in addition to the latest checkpoints.
    """

    figures: Mapping[str, float] | None = None
    stop: str = ""
    keep: bool = False


NOTHING = Reaction()
"""The reaction that logs nothing, keeps nothing and lets training continue."""


class Callback:
    """Base class of callbacks, which observe training; no method has to be overridden.

    All processes of a run call the same methods with the same figures, so a callback that decides
    from these figures alone decides the same in every process.
    """

    def begin(self, progress: Progress) -> None:
        """Called before the first update after each start, also when a run is resumed."""

    def after_update(self, progress: Progress) -> Reaction:
        """Called after each update whose figures are logged (`--train.log_every`)."""
        return NOTHING

    def after_look(self, progress: Progress) -> Reaction:
        """Called after each evaluation of the bound on held-out text (`--train.evaluate_every`)."""
        return NOTHING

    def state(self) -> Mapping[str, Any]:
        """The state to save in checkpoints, as plain values by name."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore the state that `state` returned when the checkpoint was saved."""
