"""What a run directory keeps, to compare runs with each other: without times."""

import json
import time
from pathlib import Path

from warm import Started

from platform_core.record import metrics


def tensors(run: Path) -> dict[str, bytes]:
    """The files of tensors of the newest checkpoint."""
    newest = sorted((run / "checkpoints").glob("step-*"))[-1]
    return {file.name: file.read_bytes() for file in sorted(newest.glob("*.safetensors"))}


def record(run: Path) -> list[dict[str, object]]:
    """The lines of metrics.jsonl, without times."""
    timed = {"time", "tokens_per_second", "data_share", "flops_per_second"}
    lines = metrics.read(run / "metrics.jsonl")
    return [{key: value for key, value in line.items() if key not in timed} for line in lines]


def numbers(run: Path) -> dict[str, object]:
    """The figures of the result, without those of the machine."""
    result = json.loads((run / "result.json").read_text())
    machine = {"seconds", "seconds_evaluating", "peak_rss_bytes", "card", "evaluations"}
    return {key: value for key, value in result.items() if key not in machine}


def wait_for_step(run: Path, step: int, process: Started) -> None:
    """Until the record has that step; a killed writer may leave half a line."""
    while process.poll() is None:
        if (run / "metrics.jsonl").exists() and any(
            line["step"] >= step for line in metrics.read(run / "metrics.jsonl")
        ):
            return
        time.sleep(0.02)
