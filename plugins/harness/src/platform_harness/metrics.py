"""Metrics of tasks, for tables; imports neither torch nor lm_eval.

The numbers that a task has are known only from its measurement, so one metric, `tasks`, stands for
all of them: `tasks.acc`, `tasks.acc_norm` and so on, and `drawn.exact_match` and the like for tasks
of generated text, whose tables have a row for each sampler. The task is one of the facts that two
numbers must share, so that each task has a table of its own.
"""

from collections.abc import Iterator, Mapping
from functools import cache

from platform_core.record.cards import NOTED, UNSAID, Family, Measurement, Metric, recorded

CHANCE = "chance"
ERROR = "_standard_error"
LOSSES = ("perplexity", "brier_score", "bits_per_byte")
"""Endings of the names of numbers that are better when they are lower."""

FACTS = ("task", "task_version", "task_path", "num_fewshot", "items", "evaluate.weights")


def _keys(measurement: Measurement) -> tuple[str, ...]:
    return FACTS


def _title(measurement: Measurement) -> str:
    task, items = measurement.fact("task"), measurement.fact("items")
    return "Tasks" if UNSAID in (task, items) else f"{task}, {items} items"


def _chance(measurement: Measurement) -> list[str]:
    chance = measurement.figure(f"metrics.{CHANCE}")
    return [] if chance is None else [f"Chance: acc {chance:.4g}."]


FAMILY = Family(
    "tasks",
    _title,
    words="--tasks NAME,...",
    noted=(*NOTED, "likelihood", "draws", "length", "lm_eval"),
    remarks=_chance,
)

DRAWN = Family(
    "drawn",
    _title,
    words="--tasks NAME,...",
    noted=(*NOTED, "length", "lm_eval"),
    by_sampler=True,
)
"""Numbers of generated text, which a sampler has drawn."""


@cache
def of_task(name: str, place: str = "metrics") -> Metric:
    """The metric of the number with this name, such as `acc`, in any task.

    Args:
        name: name of the number.
        place: where records have it: metrics, or drawn where a sampler has drawn the answers.
    """
    return Metric(
        f"{'drawn' if place == 'drawn' else 'tasks'}.{name}",
        name,
        f"{place}.{name}",
        recorded(f"{place}.{name}{ERROR}"),
        _keys,
        DRAWN if place == "drawn" else FAMILY,
        lower_is_better=name.endswith(LOSSES),
    )


def members(measurement: Measurement) -> Iterator[Metric]:
    """The metrics of a measurement, without those over only the items that a model could score.

    Which items could be scored depends on the model, so these numbers are not comparable.
    """
    for place in ("metrics", "drawn"):
        numbers = measurement.record.figures.get(place)
        for name in numbers if isinstance(numbers, Mapping) else ():
            if name != CHANCE and not name.endswith((ERROR, "_where_scored")):
                yield of_task(name, place)


TASKS = Metric(
    "tasks",
    "tasks",
    "metrics",
    recorded("metrics"),
    _keys,
    FAMILY,
    lower_is_better=False,
    members=members,
)
"""The metric that stands for every number that was measured on tasks."""
