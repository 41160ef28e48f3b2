"""Sweeps and runs made of files alone, for tests of what reads them."""

import json
import math
from pathlib import Path

TEXT = "1" * 64
TOKENIZER = "2" * 64
FINGERPRINT = "3" * 64
JUDGE = "4" * 64
LN2 = math.log(2)


def card(**changes):
    """Of a bound; `a__b=value` changes what is at a.b."""
    made = {
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


def changed(made, changes):
    """A card with other values at some places."""
    for place, value in changes.items():
        *path, last = place.split("__")
        inside = made
        for part in path:
            inside = inside[part]
        inside[last] = value
    return made


def bound(nats, error=0.01, **changes):
    """A record of `platform eval`, of 1280 tokens that are 640 characters."""
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


def result(nats, error=0.01, *, seconds=100.0, memory=1.5e9, **changes):
    """The `result.json` of a run, whose error is in bits."""
    record = bound(nats, error, **changes)
    record["standard_error"] = None if error is None else error / LN2
    return record | {
        "steps": 800,
        "seconds": seconds,
        "peak_rss_bytes": memory,
        "parameters": 1_000_000,
    }


def judged(perplexity, entropy, *, steps=8, nfe=None, seconds=1.0, **changes):
    """A record of `platform eval --judge`."""
    made = {
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
    figures = {"perplexity": perplexity, "perplexity_error": 0.5, "mauve": None}
    figures |= {"entropy": entropy, "entropy_error": 0.01}
    return {
        "samples": figures,
        "real": {**figures, "perplexity": 20.0, "entropy": 3.1},
        "shuffled": {**figures, "perplexity": 900.0, "entropy": 3.1},
        "nfe": nfe or steps,
        "seconds": seconds,
        "card": changed(made, changes),
    }


def of_task(task, acc, *, items=100, **changes):
    """A record of `platform eval --tasks`."""
    made = {
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


def write_run(path: Path, ended=None, *, evaluations=None, metrics=(), aim=None):
    """A run directory with these records."""
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
    """A sweep's directory, trial by trial.

    Args:
        path: of it.
        axes: labels by axis.
    """

    def __init__(self, path: Path, axes):
        self.path, self.axes, self.trials = path, axes, []
        (path / "state").mkdir(parents=True)
        (path / "sweep.yaml").write_text("axes:\n  process: [<duo>, mdlm]\n")

    def add(self, labels, ended=None, *, status="finished", message="", code=None, **records):
        """A trial at a place on the axes, with what it has written so far."""
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

    def write(self):
        """The list of trials; the directory is then whole."""
        plan = {"format": 1, "axes": self.axes, "evaluate": [], "trials": self.trials}
        (self.path / "trials.json").write_text(json.dumps(plan))
        return self.path
