"""Measure the noise of the loss and the gradient of an objective, at the weights of a run.

    python experiments/sotu/variance.py RUN "uniform-nelbo" "curriculum" "curriculum top_k=2"

Over many training batches, for each objective at the same weights: the mean loss and its standard
deviation from batch to batch, the squared norm of the mean gradient, the total variance of the
gradient (the trace of its covariance), and the ratio of this variance to the squared norm, which is
the number of batches after which the mean gradient is as large as its own error.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import torch

from platform_core.composition.compose import Composition, compose
from platform_core.data.sequences import Data, Order, load_data
from platform_core.data.tokenizer import load_tokenizer
from platform_core.draws import Draws
from platform_core.evaluation.trained import load_start
from platform_core.record.directory import RunDirectory
from platform_core.registry.loading import load_plugins
from platform_core.runtime import accelerator as runtime


class Noise(NamedTuple):
    """Mean and noise of loss and gradient over batches."""

    loss: float
    loss_deviation: float
    signal: float
    """Squared norm of the mean gradient, unbiased."""
    variance: float
    """Trace of the covariance of one batch's gradient."""


def measured(composition: Composition, data: Data, *, batches: int, step: int) -> Noise:
    """Measure loss and gradient over `batches` batches, drawn as training does at a step."""
    built = composition.build(data.tokenizer.vocab_size)
    load_start(built.model, composition.init)
    built.objective.train()
    parameters = [p for p in built.objective.parameters() if p.requires_grad]
    split, size = data.split("train"), composition.train.batch_size
    order = Order(len(split), seed=1)
    losses, total, squares = [], torch.zeros(()), 0.0
    for number in range(batches):
        batch = split.batch(order.rows(number, size))
        draws = Draws.derive("variance", number, step=step, first=0, total=size)
        mean = built.objective(batch, draws).total / batch.mask.sum()
        gradient = torch.cat([g.flatten().double() for g in torch.autograd.grad(mean, parameters)])
        losses.append(mean.item())
        total = total + gradient
        squares += float(gradient.square().sum())
    loss, norm = torch.tensor(losses, dtype=torch.float64), float((total / batches).square().sum())
    variance = (squares / batches - norm) * batches / (batches - 1)
    return Noise(float(loss.mean()), float(loss.std()), norm - variance / batches, variance)


def main() -> None:
    """Print the table of all objectives."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="directory of the run whose weights are used")
    parser.add_argument("objectives", nargs="+", help="NAME OPTION=VALUE ..., in quotes")
    parser.add_argument("--batches", type=int, default=256)
    parser.add_argument(
        "--step", type=int, default=0, help="training step, which objectives may read"
    )
    asked = parser.parse_args()
    runtime.start("fp32")
    plugins, tokenizer = load_plugins(), load_tokenizer(RunDirectory(asked.run).tokenizer)
    print(f"{'objective':32}{'loss':>8}{'+-':>8}{'signal':>10}{'variance':>10}{'ratio':>8}")
    for objective in asked.objectives:
        name, *options = objective.split()
        words = [f"--init={asked.run}", f"--objective={name}", "--train.precision=fp32"]
        words += [f"--objective.{option}" for option in options]
        composition, _ = compose(words, plugins, prog="variance.py", environ={})
        data = load_data(composition.data, tokenizer)
        found = measured(composition, data, batches=asked.batches, step=asked.step)
        print(
            f"{objective:32}{found.loss:8.3f}{found.loss_deviation:8.3f}{found.signal:10.4f}"
            f"{found.variance:10.4f}{found.variance / found.signal:8.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
