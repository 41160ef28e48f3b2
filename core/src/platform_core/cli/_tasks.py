"""`platform eval RUN --tasks ...`: accuracy on tasks of lm-evaluation-harness."""

import re
from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platform_core.directory import RunDirectory
from platform_core.errors import UsageError

if TYPE_CHECKING:
    from accelerate import Accelerator

    from platform_core.compose import Composition
    from platform_core.harness import TrainedLm

DRAWS = 32
NOISE, UNDECIDED = "mean_noise_error_of_a_score", "items_undecided_by_noise"
OF_TASKS = ("limit", "task_path", "num_fewshot", "draws", "context")


def arguments(parser: ArgumentParser) -> None:
    """The words of `--tasks`."""
    from jsonargparse.typing import NonNegativeInt, PositiveInt

    parser.add_argument(
        "--tasks",
        metavar="NAME,...",
        help="instead of the bound of text: tasks of lm-evaluation-harness, as arc_easy,piqa; "
        'needs pip install "dlm-platform-core[harness]"',
    )
    parser.add_argument("--limit", type=PositiveInt, help="items of each task; by default all")
    parser.add_argument("--task_path", metavar="DIR", help="tasks of your own, as YAML files")
    parser.add_argument("--num_fewshot", type=NonNegativeInt, help="answered items before each one")
    parser.add_argument(
        "--draws", type=PositiveInt, help=f"noise levels at which a choice is read; {DRAWS}"
    )
    parser.add_argument(
        "--context",
        choices=["clean", "noised"],
        help="score a choice by its own bound behind the clean context, which is the default under "
        "masks, or by what the bound of the whole text grows by, the default under other noise",
    )


def asked_for(asked: Namespace) -> bool:
    """Whether the command line is about tasks.

    Raises:
        UsageError: it has options of tasks, but names none.
    """
    if asked.tasks is None:
        for option in OF_TASKS:
            if getattr(asked, option) is not None:
                raise UsageError(f"--{option} is for tasks; name some with --tasks arc_easy,piqa")
        return False
    if asked.on or asked.side_by_side:
        other = "--on" if asked.on else "--side_by_side"
        raise UsageError(f"{other} is for bounds of text; leave it out with --tasks")
    return True


def tasks(composition: "Composition", directory: RunDirectory, asked: Namespace) -> int:
    """Prints what was found for each task, and keeps it in the run's `evaluations/`.

    Raises:
        UsageError: lm_eval is missing, or several processes were started; and what `run_tasks`
            raises.
    """
    names = list(dict.fromkeys(filter(None, asked.tasks.split(","))))
    if not names:
        raise UsageError("--tasks names none; give for example --tasks arc_easy,piqa")
    try:
        from platform_core.harness import VERSION, run_tasks
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "lm_eval":
            raise
        raise UsageError(
            "--tasks needs lm-evaluation-harness, which is not installed: "
            'pip install "dlm-platform-core[harness]"'
        ) from error

    from platform_core import runtime
    from platform_core.files import json_text
    from platform_core.provenance import tokenizer_card
    from platform_core.results import keep_evaluation

    accelerator = runtime.start(composition.train.precision)
    if accelerator.num_processes > 1:
        raise UsageError("--tasks runs in one process; start it without a launcher")
    model, step = _model(composition, directory, asked, accelerator)
    likelihood = model.likelihood
    found = run_tasks(
        model,
        names,
        folder=None if asked.task_path is None else Path(asked.task_path),
        limit=asked.limit,
        num_fewshot=asked.num_fewshot,
    )
    items = sum(outcome.items for outcome in found)
    records = []
    for outcome in found:
        record = {
            "metrics": outcome.metrics,
            "items": outcome.items,
            **outcome.counts,
            "card": {
                "task": outcome.task,
                "task_version": outcome.version,
                "asked": asked.tasks,
                "task_path": asked.task_path,
                "limit": asked.limit,
                "num_fewshot": asked.num_fewshot,
                "lm_eval": VERSION,
                "likelihood": likelihood.name,
                "draws": likelihood.draws,
                "seconds_per_item": model.seconds / max(1, items),
                "step": step,
                "evaluate": asdict(composition.evaluate),
                "parts": dict(composition.names),
                "length": composition.data.length,
                "tokenizer": tokenizer_card(model.reader.tokenizer),
                "seed": composition.seed,
                "units": "noise errors in nats of a whole choice; accuracies of items",
                **runtime.describe(accelerator),
            },
        }
        kept = keep_evaluation(directory, _name(record), record)
        records.append(record)
        if not asked.json:
            print(_said(record) + f"\nkept in {kept}", flush=True)
    if asked.json:
        print("\n".join(map(json_text, records)))
    return 0


def _model(
    composition: "Composition",
    directory: RunDirectory,
    asked: Namespace,
    accelerator: "Accelerator",
) -> tuple["TrainedLm", int]:
    """The run as lm_eval asks it, and the step of its weights."""
    from platform_core.corpus_choice import open_corpus
    from platform_core.data import packer
    from platform_core.harness import Reader, TrainedLm
    from platform_core.likelihood import choose
    from platform_core.packing import Chunked
    from platform_core.tokenizer import load_tokenizer
    from platform_core.trained import load_trained

    options = composition.evaluate
    tokenizer = load_tokenizer(directory.tokenizer)
    built, step = load_trained(
        composition,
        directory,
        accelerator,
        vocab_size=tokenizer.vocab_size,
        average=options.weights,
    )
    likelihood = choose(built.objective, asked.context, asked.draws or DRAWS)
    packing = packer(open_corpus(composition.data), tokenizer, composition.data)
    # Published packing puts a beginning before every sequence, whatever it marks.
    begin = packing.bos if isinstance(packing, Chunked) else packing.marks.begin
    labels = directory.label_names()
    model = TrainedLm(
        likelihood,
        Reader(tokenizer, tuple(map(int, begin)), composition.data.length),
        accelerator,
        batch_size=options.batch_size,
        seed=composition.seed,
        label=len(labels) if labels else None,
    )
    return model, step


def _name(record: dict[str, Any]) -> str:
    card = record["card"]
    words = [re.sub(r"[^\w.]+", "_", card["task"]), card["evaluate"]["weights"], card["likelihood"]]
    words += [f"{card['draws']}-draws"] if card["draws"] > 1 else []
    words += [f"{card['num_fewshot']}-shot"] if card["num_fewshot"] else []
    words += [f"{record['items']}-items"] if card["limit"] else []
    return "-".join([*words, f"step-{card['step']:07d}"])


def _said(record: dict[str, Any]) -> str:
    card = record["card"]
    read = f" at {card['draws']} noise levels" if card["draws"] > 1 else ""
    lines = [
        f"{card['task']}, {record['items']} items; {card['evaluate']['weights']} weights of step "
        f"{card['step']}; {card['likelihood']} likelihood{read}; "
        f"{card['seconds_per_item']:.3f} s per item"
    ]
    metrics = record["metrics"]
    for name, value in metrics.items():
        if not name.endswith("_standard_error"):
            error = metrics.get(f"{name}_standard_error")
            known = "" if error is None else f" +- {error:.4f}"
            lines.append(f"  {name:<21} {value:.4f}{known}")
    if card["draws"] > 1:
        noise, undecided = (record[name] for name in (NOISE, UNDECIDED))
        lines.append(
            f"  error from noise      {noise:.2f} nats a choice; it leaves {undecided} items open "
            "(ahead by less than 2 errors)"
        )
    for name, what in (
        ("items_with_cut_context", "were cut at the left to the length of training"),
        (
            "items_with_unknown_characters",
            "have characters that the tokenizer lacks before the choice",
        ),
        ("items_that_cannot_be_scored", "have a choice that cannot be scored, and count as wrong"),
    ):
        if record[name]:
            lines.append(f"  {record[name]} items {what}")
    return "\n".join(lines)
