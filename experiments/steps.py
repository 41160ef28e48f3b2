"""Seconds and added memory of a training step of each family, of several source trees in turn.

    python experiments/steps.py --tree before=PATH --tree after=. --size large --repeats 3

The trees are checkouts of this repository. Each figure comes from a process of its own, which
imports the packages of one tree; trees alternate, and the table shows the least of all repeats.
Seconds are CPU seconds of forward and backward of the quickest of some steps. Memory is what the
first step added to the peak of the process, in MiB; gradients of the weights are part of it.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

SIZES = {"large": (50257, 4, 256), "small": (31, 8, 128)}
"""Name -> states, sequences and length; the network is a DiT of 8 blocks of width 256, 8 heads."""

NETWORK = [f"--backbone.{key}=8" for key in ("num_blocks", "num_heads")]

FAMILIES = {
    "duo": ["--process=duo"],
    "mdlm": ["--process=mdlm"],
    "sedd": ["--process=sedd"],
    "sedd, score-entropy": ["--process=sedd", "--objective=score-entropy"],
    "ar": ["--process=ar"],
    "d3pm": ["--process=d3pm"],
}
"""Command-line words that choose each row of the table."""


def main() -> None:
    """Print the table, or measure one row where `--one` says so."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tree", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--size", choices=SIZES, default="large")
    parser.add_argument("--rows", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--repeats", type=int, default=3, help="processes for each tree and row")
    parser.add_argument("--steps", type=int, default=3, help="steps in each process")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bf16", action="store_true", help="under autocast to bfloat16")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measure(asked.one, asked)))
        return
    trees = dict(word.split("=", 1) for word in asked.tree or ["here=."])
    print(f"{'row':22}" + "".join(f"{name + ' s':>12}{name + ' MiB':>12}" for name in trees))
    for row in asked.rows:
        found: dict[str, list[dict[str, float]]] = {name: [] for name in trees}
        for _ in range(asked.repeats):
            for name, path in trees.items():
                found[name].append(apart(row, Path(path), asked))
        figures = ""
        for parts in found.values():
            for key in ("seconds", "mebibytes"):
                figures += f"{min(part[key] for part in parts):12.2f}"
        print(f"{row:22}{figures}", flush=True)


def apart(row: str, tree: Path, asked: argparse.Namespace) -> dict[str, float]:
    """The figures of one row of one tree, measured in a new process."""
    sources = [tree / "core" / "src", *sorted((tree / "plugins").glob("*/src"))]
    threads = {key: str(asked.threads) for key in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    paths = {"PYTHONPATH": os.pathsep.join(str(path.resolve()) for path in sources)}
    words = ["--one", row, "--size", asked.size, "--steps", str(asked.steps)]
    words += ["--threads", str(asked.threads), *(["--bf16"] if asked.bf16 else [])]
    command = [sys.executable, str(Path(__file__).resolve()), *words]
    done = subprocess.run(command, env={**os.environ, **threads, **paths}, stdout=-1, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def measure(row: str, asked: argparse.Namespace) -> dict[str, float]:
    """CPU seconds and added memory of the steps of one row, in this process."""
    import torch

    from platform_bench.machine import resident_bytes
    from platform_core.composition.compose import compose
    from platform_core.draws import Draws
    from platform_core.registry.loading import load_plugins
    from platform_core.runtime import accelerator as runtime
    from platform_core.types import Batch

    runtime.start("fp32")
    torch.set_num_threads(asked.threads)
    states, batch, length = SIZES[asked.size]
    words = [*FAMILIES[row], "--backbone.hidden_size=256", *NETWORK]
    composition, _ = compose(words, load_plugins(), prog="steps")
    torch.manual_seed(0)
    built = composition.build(states)
    for parameter in built.model.backbone.decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    x0 = torch.randint(states, (batch, length))
    texts, seconds, added = Batch(x0, torch.ones_like(x0, dtype=torch.bool)), [], 0
    before = resident_bytes()
    for _ in range(asked.steps):
        start = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=asked.bf16):
            loss = built.objective(texts, Draws.derive(0, step=0, first=0, total=batch))
        loss.total.backward()
        seconds.append(time.process_time() - start)
        added = added or runtime.peak_rss_bytes() - before
        built.objective.zero_grad()
    return {"seconds": min(seconds), "mebibytes": added / 2**20}


if __name__ == "__main__":
    main()
