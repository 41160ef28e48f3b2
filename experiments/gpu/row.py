"""One row of the table of check.sh: speed, share of the peak, memory and last loss of a run.

    python experiments/gpu/row.py RUN LABEL

Speeds are the medians of all lines of metrics.jsonl, so that compiling at the start counts little.
"""

import json
import sys
from pathlib import Path
from statistics import median


def main(run: str, label: str) -> None:
    """Print the row; a run without lines, or with a loss that is not a number, is an error."""
    lines = [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]
    train = [line for line in lines if "tokens_per_second" in line]
    if not train or any(line["loss"] != line["loss"] for line in train):
        sys.exit(f"error: {run} has no losses, or one that is not a number")

    def middle(key: str, form: str) -> str:
        found = [line[key] for line in train if key in line]
        return format(median(found), form) if found else "-"

    held = max((line.get("peak_device_bytes", 0) for line in train), default=0)
    shown = f"{held / 1e9:.2f}" if held else "-"
    speed, share = middle("tokens_per_second", ",.0f"), middle("flops_utilisation", ".1%")
    print(f"| {label} | {speed} | {share} | {shown} | {train[-1]['loss']:.6f} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
