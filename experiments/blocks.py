"""How long block diffusion takes to write, with its cache and without: seconds and calls.

    python experiments/blocks.py [--length 512] [--block_size 4,16,64] [--times 3]

A network of `dit` with random weights writes the same texts both ways, in turns. Seconds are the
least of the turns.
"""

import argparse
import time

import torch

from platform_blocks.sampler import Blocks
from platform_core.model import Model
from platform_core.parameterization import Mean
from platform_core.process import Absorbing
from platform_core.sampler import Ancestral, Sample
from platform_core.schedule import LogLinear
from platform_dit.backbone import Dit

TOKENS, TEXTS, STEPS = 110, 8, 16


def model() -> Model:
    """A masked model of random weights."""
    torch.manual_seed(0)
    process = Absorbing(TOKENS)
    backbone = Dit(process.num_states, causal=False, time_conditioned=False)
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return Model(process, LogLinear(), Mean(), backbone).eval()


def write(written: Model, length: int, size: int, *, cached: bool) -> tuple[Sample, float]:
    """Texts, and the seconds that they took."""
    sampler = Blocks(Ancestral(STEPS), length, block_size=size, cached=cached)
    start = time.perf_counter()
    sample = sampler(written, (TEXTS, length), torch.Generator().manual_seed(1))
    return sample, time.perf_counter() - start


def main() -> None:
    """Print a line for each size of blocks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--block_size", default="4,16,64")
    parser.add_argument("--times", type=int, default=3)
    asked = parser.parse_args()
    written = model()
    print("block  calls  seconds without  with the cache  ratio  same texts")
    for size in map(int, asked.block_size.split(",")):
        seconds: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(asked.times):
            texts = []
            for cached, taken in seconds.items():
                sample, took = write(written, asked.length, size, cached=cached)
                taken.append(took)
                texts.append(sample)
        without, with_cache = min(seconds[False]), min(seconds[True])
        same = torch.equal(texts[0].tokens, texts[1].tokens)
        print(
            f"{size:5}  {texts[0].nfe:5}  {without:15.1f}  {with_cache:14.1f}  "
            f"{with_cache / without:5.2f}  {same}"
        )


if __name__ == "__main__":
    main()
