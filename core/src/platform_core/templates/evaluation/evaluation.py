"""The evaluation: one way to measure a trained network, and the metric that tables show.

    samples -> distinct pairs of neighbouring tokens / all such pairs, of each sample -> the mean

`platform eval RUN --new_part` measures a run and keeps the record in its directory; `platform
compare` and `platform report` show the metric for runs whose cards agree in its keys.
"""

import math
import statistics
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import TYPE_CHECKING, final

from platform_core.errors import UsageError
from platform_core.evaluation.evaluation import Evaluation, Measured
from platform_core.record.cards import Family, Measurement, Metric, Record, recorded

if TYPE_CHECKING:
    from platform_core.evaluation.trained import TrainedRun


def title(measurement: Measurement) -> str:
    """The title of a table of this metric."""
    return f"Variety of {measurement.fact('sample.number')} samples"


def keys(measurement: Measurement) -> tuple[str, ...]:
    """The facts that two numbers must share to stand in one column."""
    asked = ("number", "length", "weights", "prompt", "template", "label")
    return (*(f"sample.{name}" for name in asked), "tokenizer.digest")


FAMILY = Family("new-part", title, words="--new_part", by_sampler=True)

METRIC = Metric(
    "new_part",
    "distinct pairs",
    "distinct",
    recorded("distinct_error"),
    keys,
    FAMILY,
    lower_is_better=False,
)


@final
class NewPart(Evaluation):
    """Measures which share of the pairs of neighbouring tokens in a sample is distinct."""

    reads = ("sample", "sampler", "seed")

    @classmethod
    def arguments(cls, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--new_part",
            action="store_true",
            help="measure how varied --sample.number samples are, instead of the bound of text",
        )

    @classmethod
    def is_asked(cls, asked: Namespace) -> bool:
        return bool(asked.new_part)

    def records(self, run: "TrainedRun", asked: Namespace) -> Iterator[Measured]:
        composition, options = run.composition, run.composition.sample
        if options.number < 2:
            raise UsageError(f"sample.number is {options.number}; it must be at least 2")
        run = run.with_average(options.weights)
        samples = run.sample()
        shares = [distinct(tokens) for tokens in samples.tokens]
        mean = statistics.fmean(shares)
        error = statistics.stdev(shares) / math.sqrt(len(shares))
        sampler = {
            "name": composition.names["sampler"],
            **composition.options("sampler"),
        }
        card = run.card(
            "new-part",
            units="distinct is a share from 0 to 1, distinct_error its standard error over samples",
            facts={
                "sample": {**asdict(options), "length": run.sample_length},
                "sampler": sampler,
            },
        )
        figures = {"distinct": mean, "distinct_error": error}
        costs = {"nfe": samples.nfe, "seconds": samples.seconds}
        drawn = f"{sampler['name']}-nfe-{samples.nfe}-number-{options.number}"
        name = f"new-part-{drawn}-step-{run.step:07d}"
        said = f"distinct pairs of {len(shares)} samples: {mean:.3f} +- {error:.3f}"
        yield Measured(name, Record({**figures, **costs}, card), said)


def distinct(tokens: Sequence[int]) -> float:
    """The share of pairs of neighbouring tokens that are distinct; 1 for fewer than two tokens."""
    pairs = list(pairwise(tokens))
    return len(set(pairs)) / len(pairs) if pairs else 1.0
