"""Seconds and peak memory of a training that writes checkpoints, beside its updates or between.

    python experiments/checkpoints.py --width 512 --blocks 8 --steps 12 --every 4 --repeats 3

The same training without checkpoints on the way, with them between its updates, and beside them
(--train.checkpoint_writing), each in a process of its own, in turn. Seconds are those of all
updates and checkpoints, and of `waiting` those in which no update was made because of a checkpoint,
without the last one, which all trainings wait for. Each is the least of all repeats, and so is the
peak of resident memory, in MiB.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

WAYS = {"none": 0, "between": 1, "beside": 1}
"""Way of writing -> whether there are checkpoints before the last step."""

KEYS = ("seconds", "waiting", "mebibytes")


def main() -> None:
    """Print the table, or measure one row where `--one` says so."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--blocks", type=int, default=8)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--every", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measure(asked.one, asked)))
        return
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(asked.repeats):
        for way, figures in found.items():
            command = [sys.executable, __file__, *sys.argv[1:], f"--one={way}"]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
            figures.append(json.loads(done.stdout))
    print(f"{found['none'][0]['weights']:,} weights, {asked.steps // asked.every} checkpoints")
    print(f"{'writing':10}" + "".join(f"{key:>10}{'ratio':>7}" for key in KEYS))
    least = {
        way: {key: min(each[key] for each in figures) for key in KEYS}
        for way, figures in found.items()
    }
    for way, figures in least.items():
        ratios = {key: figures[key] / max(least["between"][key], 1e-9) for key in KEYS}
        print(f"{way:10}" + "".join(f"{figures[key]:10.2f}{ratios[key]:7.2f}" for key in KEYS))


def measure(way: str, asked: argparse.Namespace) -> dict[str, float]:
    """Seconds of all updates and checkpoints of one training, and the peak of its memory."""
    import torch

    from platform_core.composition.compose import compose
    from platform_core.record.directory import RunDirectory
    from platform_core.registry.loading import load_plugins
    from platform_core.runtime import accelerator as runtime
    from platform_core.runtime.signals import Interruption
    from platform_core.training.run import Run

    with tempfile.TemporaryDirectory() as scratch:
        text = Path(scratch) / "words.txt"
        text.write_text("we the people of these united states in order to form a union " * 2000)
        words = f"""--process=mdlm --backbone.hidden_size={asked.width} --seed=1
            --backbone.num_blocks={asked.blocks} --data.corpus=text --data.path={text}
            --data.length={asked.length} --train.batch_size={asked.batch}
            --train.steps={asked.steps} --train.evaluate_every=0 --train.precision=fp32
            --train.checkpoint_every={asked.every * WAYS[way]} --track.to=none"""
        writing = [f"--train.checkpoint_writing={way}"] if WAYS[way] else []
        composition, _ = compose([*words.split(), *writing], load_plugins(), prog="checkpoints")
        torch.set_num_threads(asked.threads)
        run = Run(composition, RunDirectory(Path(scratch) / "run"), resume=False)
        torch.set_num_threads(asked.threads)
        waited: list[float] = []
        run.save = timed(run.save, waited)  # type: ignore[method-assign]
        with run:
            start = time.perf_counter()
            run.train(Interruption())
            ended = time.perf_counter()
        weights = sum(parameter.numel() for parameter in run.built.model.parameters())
    return {
        "seconds": ended - start,
        "waiting": sum(waited[:-1]),
        "mebibytes": runtime.peak_rss_bytes() / 2**20,
        "weights": weights,
    }


def timed(call: Callable[[], None], seconds: list[float]) -> Callable[[], None]:
    """The same function, which adds its seconds to a list."""

    def measured() -> None:
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)

    return measured


if __name__ == "__main__":
    main()
