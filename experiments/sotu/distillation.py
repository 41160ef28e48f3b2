"""Compare few-step samples of a distilled student with those of its teacher.

    python experiments/sotu/distillation.py --judge AR_RUN --runs TEACHER STUDENT --plot few.png

For every run, number of steps and ending of the sampler: bits per token that an autoregressive run
of the same tokenizer gives the samples (lower is more probable text), and the entropy of the tokens
within a sample, in bits (lower is more repetitive; a sampler can always lower the first number by
lowering the entropy). Two controls come first: held-out text, and this text with its tokens
shuffled.
"""

import argparse
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor

from platform_core.composition.compose import Built, compose_saved
from platform_core.data.sequences import load_data
from platform_core.data.tokenizer import Tokenizer
from platform_core.draws import Draws, derive_generator
from platform_core.evaluation.samples import generate
from platform_core.evaluation.trained import TrainedRun
from platform_core.record.directory import RunDirectory
from platform_core.registry.loading import load_plugins
from platform_core.runtime import accelerator as runtime
from platform_core.types import Batch


class Row(NamedTuple):
    """One line of the table."""

    text: str
    steps: int
    final: str
    nfe: int
    judged: float
    """Bits per token under the judge."""
    error: float
    """Standard error of `judged`, over samples."""
    entropy: float
    """Entropy of the tokens within a sample, in bits, averaged over samples."""


class Opened(NamedTuple):
    """A run, its parts, its tokenizer and its sequence length."""

    directory: RunDirectory
    built: Built
    tokenizer: Tokenizer
    length: int


def opened(path: Path, accelerator: Accelerator) -> Opened:
    """Open a run with its averaged weights."""
    run = TrainedRun.open(path, accelerator=accelerator)
    return Opened(run.directory, run.built, run.tokenizer, run.composition.data.length)


def judged(judge: Opened, tokens: Tensor) -> tuple[float, float]:
    """Bits per token of texts under the judge, and the standard error over texts."""
    batch = Batch(tokens, torch.ones_like(tokens, dtype=torch.bool))
    draws = Draws.derive("judge", step=0, first=0, total=len(tokens))
    with torch.no_grad():
        nats = judge.built.objective.bound(batch, draws).per_token.double().mean(-1)
    bits = nats / math.log(2)
    return float(bits.mean()), float(bits.std() / len(bits) ** 0.5)


def entropy(tokens: Tensor) -> float:
    """Entropy of the tokens within each text, in bits, averaged over texts."""
    found = []
    for row in tokens:
        share = row.unique(return_counts=True)[1].double() / len(row)
        found.append(float(-(share * share.log2()).sum()))
    return sum(found) / len(found)


def controls(judge: Opened, like: Opened, number: int) -> Iterator[Row]:
    """Rows of held-out text of the same length, and of this text with its tokens shuffled."""
    composition, _ = compose_saved(like.directory.config, [], load_plugins(), prog="controls")
    split = load_data(composition.data, like.tokenizer).split("validation").spread(number)
    batch = split.batch(range(len(split)))
    tokens = batch.x0[batch.mask.all(-1)]
    mixed = torch.rand(tokens.shape, generator=derive_generator("shuffle")).argsort(-1)
    for name, text in (("held-out", tokens), ("shuffled", tokens.gather(-1, mixed))):
        yield Row(name, 0, "-", 0, *judged(judge, text), entropy(text))


def sampled(
    run: Opened, judge: Opened, *, steps: int, final: str, number: int, accelerator: Accelerator
) -> Row:
    """The row of samples of a run, for one number of steps and one ending."""
    words = [f"--sampler.steps={steps}", f"--sampler.final={final}", f"--sample.number={number}"]
    words += ["--sample.batch_size=64", "--sampler=ancestral"]
    composition, _ = compose_saved(run.directory.config, words, load_plugins(), prog="sampled")
    sampler = composition.build(run.tokenizer.vocab_size).sampler
    samples = generate(
        run.built.model,
        sampler,
        run.tokenizer,
        accelerator,
        composition.sample,
        length=run.length,
        seed=composition.seed,
    )
    tokens = torch.tensor(samples.tokens)
    name = run.directory.path.name
    return Row(name, steps, final, samples.nfe, *judged(judge, tokens), entropy(tokens))


def plot(rows: list[Row], path: Path) -> None:
    """Judged bits and entropy against steps, a line for each run and ending."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    lines = sorted({(row.text, row.final) for row in rows if row.steps})
    for axis, field, title in zip(
        axes,
        ("judged", "entropy"),
        ("bits per token, by the judge", "entropy within a sample, bits"),
        strict=True,
    ):
        for text, final in lines:
            own = [row for row in rows if (row.text, row.final) == (text, final)]
            values = [getattr(row, field) for row in own]
            axis.plot([row.steps for row in own], values, marker="o", label=f"{text}, {final}")
        held_out = next(row for row in rows if row.text == "held-out")
        axis.axhline(getattr(held_out, field), color="grey", linestyle=":", label="held-out text")
        axis.set(xscale="log", xlabel="steps of the sampler", title=title)
        axis.set_xticks(sorted({row.steps for row in rows if row.steps}))
        axis.get_xaxis().set_major_formatter(matplotlib.ticker.ScalarFormatter())
        axis.minorticks_off()
    axes[0].legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Print the table; write it and the plot if requested."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--judge", type=Path, required=True, help="an ar run of the same tokenizer")
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="teacher and students")
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 8, 16, 32, 64])
    parser.add_argument("--finals", nargs="+", default=["ancestral", "greedy"])
    parser.add_argument("--number", type=int, default=256, help="samples of each kind")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--plot", type=Path, help="write the plot to this file (needs matplotlib)")
    asked = parser.parse_args()

    accelerator = runtime.start("fp32")
    judge = opened(asked.judge, accelerator)
    runs = [opened(path, accelerator) for path in asked.runs]
    print(f"{'text':16}{'steps':>6}{'final':>11}{'NFE':>5}{'bits':>8}{'+-':>7}{'entropy':>9}")
    rows: list[Row] = []

    def keep(row: Row) -> None:
        rows.append(row)
        print(
            f"{row.text:16}{row.steps:>6}{row.final:>11}{row.nfe:>5}{row.judged:>8.3f}"
            f"{row.error:>7.3f}{row.entropy:>9.3f}",
            flush=True,
        )

    for row in controls(judge, runs[0], asked.number):
        keep(row)
    for run in runs:
        for final in asked.finals:
            for steps in asked.steps:
                keep(
                    sampled(
                        run,
                        judge,
                        steps=steps,
                        final=final,
                        number=asked.number,
                        accelerator=accelerator,
                    )
                )
    if asked.json:
        asked.json.write_text(json.dumps([row._asdict() for row in rows], indent=1) + "\n")
    if asked.plot:
        plot(rows, asked.plot)


if __name__ == "__main__":
    main()
