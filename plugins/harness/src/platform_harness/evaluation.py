"""`platform eval RUN --tasks ...`: accuracy on tasks of lm-evaluation-harness."""

import re
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from platform_core.errors import UsageError
from platform_core.evaluation.evaluation import Evaluation, Measured
from platform_core.record.cards import Card, Record

if TYPE_CHECKING:
    from platform_core.evaluation.trained import TrainedRun
    from platform_harness.tasks import Outcome, TrainedLm

DRAWS = 32
NOISE, UNDECIDED = "mean_noise_error_of_a_score", "items_undecided_by_noise"
COMPARED = "items_compared"
OF_TASKS = ("limit", "task_path", "trust_tasks", "num_fewshot", "draws", "context")


@final
class Tasks(Evaluation):
    """Accuracy on tasks of lm-evaluation-harness, such as questions with choices."""

    reads = (
        "evaluate.weights",
        "evaluate.batch_size",
        "data.length",
        "data.packing",
        "data.marks",
        "objective",
        "sampler",
        "sample.length",
        "sample.label",
        "sample.guidance",
        "seed",
    )

    @classmethod
    def arguments(cls, parser: ArgumentParser) -> None:
        from jsonargparse.typing import NonNegativeInt, PositiveInt

        parser.add_argument(
            "--tasks",
            metavar="NAME,...",
            help="tasks of lm-evaluation-harness to run instead of the bound, as arc_easy,piqa",
        )
        parser.add_argument("--limit", type=PositiveInt, help="items of each task; all by default")
        parser.add_argument(
            "--task_path",
            metavar="DIR",
            help="folder of tasks of your own, as YAML. Such tasks are programs: they may name "
            "functions of Python files (!function) and have templates that can run any code, so "
            "read tasks of others first, and give --trust_tasks",
        )
        parser.add_argument(
            "--trust_tasks",
            action="store_true",
            default=None,
            help="run the tasks in --task_path, which may do anything that you may do here",
        )
        parser.add_argument(
            "--num_fewshot", type=NonNegativeInt, help="solved examples before each item"
        )
        parser.add_argument(
            "--draws", type=PositiveInt, help=f"noise levels at which a choice is read ({DRAWS})"
        )
        parser.add_argument(
            "--context",
            choices=["clean", "noised"],
            help="clean: score a choice by its own bound after the clean context, the default "
            "under masks; noised: score it by how much it raises the bound of the whole text, the "
            "default under other noise",
        )

    @classmethod
    def is_asked(cls, asked: Namespace) -> bool:
        if asked.tasks is not None:
            if asked.task_path is not None and not asked.trust_tasks:
                raise UsageError(
                    f"the tasks in --task_path {asked.task_path} are programs, which may do "
                    "anything that you may do here; read them, then give --trust_tasks as well"
                )
            return True
        for option in OF_TASKS:
            if getattr(asked, option) is not None:
                raise UsageError(f"--{option} is for tasks; name some with --tasks arc_easy,piqa")
        return False

    def records(self, run: "TrainedRun", asked: Namespace) -> Iterator[Measured]:
        from platform_harness.names import require_known

        names = list(dict.fromkeys(filter(None, asked.tasks.split(","))))
        if not names:
            raise UsageError("--tasks names no task; give for example --tasks arc_easy,piqa")
        if asked.task_path is None:
            require_known(names)
        try:
            from platform_harness.tasks import run_tasks
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] != "lm_eval":
                raise
            raise UsageError(
                "--tasks needs lm-evaluation-harness, which cannot be imported: pip install lm-eval"
            ) from error

        run = run.with_average(run.composition.evaluate.weights)
        model = _model(run, asked)
        found = run_tasks(
            model,
            names,
            folder=None if asked.task_path is None else Path(asked.task_path),
            limit=asked.limit,
            num_fewshot=asked.num_fewshot,
        )
        seconds = model.seconds / max(1, sum(outcome.items for outcome in found))
        for outcome in found:
            figures = {outcome.place: outcome.metrics, "items": outcome.items, **outcome.counts}
            if outcome.generated:
                figures["seconds"] = seconds * outcome.items
            record = Record(figures, _card(run, model, outcome, asked, seconds_per_item=seconds))
            yield Measured(_name(record), record, _said(record))


def _card(
    run: "TrainedRun",
    model: "TrainedLm",
    outcome: "Outcome",
    asked: Namespace,
    *,
    seconds_per_item: float,
) -> Card:
    from platform_harness.tasks import VERSION

    composition = run.composition
    facts = {
        "task": outcome.task,
        "task_version": outcome.version,
        "asked": asked.tasks,
        "task_path": asked.task_path,
        "limit": asked.limit,
        "num_fewshot": asked.num_fewshot,
        "lm_eval": VERSION,
        **_way(model, outcome),
        "seconds_per_item": seconds_per_item,
        "evaluate": asdict(composition.evaluate),
        "length": composition.data.length,
    }
    units = "noise errors in nats of a whole choice; accuracies of items"
    return run.card("tasks", units=units, facts=facts)


def _way(model: "TrainedLm", outcome: "Outcome") -> dict[str, Any]:
    """How the answers of a task came about: scored by a likelihood, or drawn by a sampler."""
    if outcome.generated and model.writer is not None:
        return {
            "sampler": model.writer.facts,
            "sample": {"length": model.writer.length, **model.writer.guidance},
            "draws": 1,
        }
    return {"likelihood": model.likelihood.name, "draws": model.likelihood.draws}


def _model(run: "TrainedRun", asked: Namespace) -> "TrainedLm":
    """The run as a model that lm_eval can query."""
    from platform_core.data.corpus import open_corpus
    from platform_core.data.packing import Chunked
    from platform_core.data.sequences import packer
    from platform_harness.likelihood import choose
    from platform_harness.tasks import Reader, TrainedLm, written_by

    composition = run.composition
    likelihood = choose(run.objective, asked.context, asked.draws or DRAWS)
    packing = packer(open_corpus(composition.data), run.tokenizer, composition.data)
    # Published packing puts a beginning before every sequence, even if documents are unmarked.
    begin = packing.bos if isinstance(packing, Chunked) else packing.marks.begin
    return TrainedLm(
        likelihood,
        Reader(run.tokenizer, tuple(map(int, begin)), composition.data.length),
        run.accelerator,
        batch_size=composition.evaluate.batch_size,
        seed=composition.seed,
        label=len(run.labels) if run.labels else None,
        writer=written_by(run),
    )


def _name(record: Record) -> str:
    card = record.card.facts
    way = card["sampler"]["name"] if "sampler" in card else card["likelihood"]
    words = [re.sub(r"[^\w.]+", "_", card["task"]), card["evaluate"]["weights"], way]
    words += [f"{card['draws']}-draws"] if card["draws"] > 1 else []
    words += [f"{card['num_fewshot']}-shot"] if card["num_fewshot"] else []
    words += [f"{record.figures['items']}-items"] if card["limit"] else []
    return "-".join([*words, f"step-{card['step']:07d}"])


def _said(record: Record) -> str:
    figures, card = record.figures, record.card.facts
    read = f" at {card['draws']} noise levels" if card["draws"] > 1 else ""
    drawn = "sampler" in card
    way = f"drawn by {card['sampler']['name']}" if drawn else f"{card['likelihood']} likelihood"
    lines = [
        f"{card['task']}, {figures['items']} items; {card['evaluate']['weights']} weights of step "
        f"{card['step']}; {way}{read}; {card['seconds_per_item']:.3f} s per item"
    ]
    metrics = figures["drawn" if drawn else "metrics"]
    for name, value in metrics.items():
        if not name.endswith("_standard_error"):
            error = metrics.get(f"{name}_standard_error")
            known = "" if error is None else f" +- {error:.4f}"
            lines.append(f"  {name:<21} {value:.4f}{known}")
    if card["draws"] > 1:
        open_items = (
            f" choice; it leaves {figures[UNDECIDED]} items open (ahead by less than 2 errors)"
            if figures[COMPARED]
            else " text"
        )
        lines.append(f"  error from noise      {figures[NOISE]:.2f} nats a{open_items}")
    for name, what in (
        ("items_with_cut_context", "were cut at the left to the length of training"),
        (
            "items_with_unknown_characters",
            "have characters that the tokenizer lacks before the choice",
        ),
        ("items_that_cannot_be_scored", "have a choice that cannot be scored, and count as wrong"),
        ("items_with_less_room", "had room for fewer tokens than the task asks for"),
    ):
        if figures.get(name):
            lines.append(f"  {figures[name]} items {what}")
    return "\n".join(lines)
