"""Seconds and memory of the last layer and its cross-entropy, forward and backward, four ways.

    python experiments/last_layer.py --rows 1024 --width 256 --states 50257 --repeats 3

plain       `rows.weighted_sum`, the way that training takes
autograd    `rows.by_autograd`, its definition
torch       `torch.nn.functional.linear_cross_entropy`, all logits at once
torch, in chunks     the same with `options`, which reduces to a sum and so knows no value per row

Each figure comes from a process of its own; ways alternate, and the table shows the least of all
repeats. Seconds are CPU seconds of the quickest of three calls; memory is what the first call added
to the peak of the process, in MiB, the gradients of 2 x states x width x 4 bytes included.
"""

import argparse
import json
import subprocess
import sys
import time

WAYS = ("plain", "autograd", "torch", "torch, in chunks")


def main() -> None:
    """Print the table, or measure one way where `--one` says so."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--states", type=int, default=50257)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measure(asked.one, asked)))
        return
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(asked.repeats):
        for way in WAYS:
            command = [sys.executable, __file__, *sys.argv[1:], "--one", way]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
            found[way].append(json.loads(done.stdout))
    print(f"{'way':20}{'s':>10}{'MiB':>10}")
    for way, parts in found.items():
        seconds, added = (min(part[key] for part in parts) for key in ("seconds", "mebibytes"))
        print(f"{way:20}{seconds:10.2f}{added:10.0f}")


def measure(way: str, asked: argparse.Namespace) -> dict[str, float]:
    """CPU seconds and added memory of one way, in this process."""
    import torch
    from torch import Tensor, nn
    from torch.nn import functional

    from platform_bench.machine import resident_bytes
    from platform_core import rows
    from platform_core.parameterization import cross_entropy
    from platform_core.runtime.accelerator import peak_rss_bytes

    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    layer = nn.Linear(asked.width, asked.states)
    hidden = torch.randn(asked.rows, asked.width, requires_grad=True)
    tokens = torch.randint(asked.states, (asked.rows,))

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(logits, target, asked.states)

    def total() -> Tensor:
        if way in ("plain", "autograd"):
            sum_ = rows.weighted_sum if way == "plain" else rows.by_autograd
            return sum_(layer, loss, hidden, (tokens,), num_states=asked.states)[0]
        options = nn.LinearCrossEntropyOptions() if way == "torch, in chunks" else None
        nats: Tensor = functional.linear_cross_entropy(
            hidden,
            layer.weight,
            tokens,
            linear_bias=layer.bias,
            reduction="sum",
            options=options,
        )
        return nats

    before, added, seconds = resident_bytes(), 0, []
    for _ in range(3):
        start = time.process_time()
        total().backward()  # type: ignore[no-untyped-call]
        seconds.append(time.process_time() - start)
        added = added or peak_rss_bytes() - before
        layer.zero_grad()
        hidden.grad = None
    return {"seconds": min(seconds), "mebibytes": added / 2**20}


if __name__ == "__main__":
    main()
