"""`platform eval RUN --right`: how many samples of a run add up."""

import math
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, final

from platform_core.errors import UsageError
from platform_core.evaluation.evaluation import Evaluation, Measured
from platform_core.record.cards import Record
from platform_core.record.files import digest_of
from platform_sums.corpus import open_sums, read_sum, split_of

if TYPE_CHECKING:
    from platform_core.data.tokenizer import Tokenizer
    from platform_core.evaluation.trained import TrainedRun


@final
class RightSums(Evaluation):
    """Samples that are sums, those that are right, and those that nobody showed the network."""

    reads = ("sample", "sampler", "seed")

    @classmethod
    def arguments(cls, parser: ArgumentParser) -> None:
        """One word."""
        parser.add_argument(
            "--right",
            action="store_true",
            help="of a run of corpus sums: which share of --sample.number samples add up",
        )

    @classmethod
    def is_asked(cls, asked: Namespace) -> bool:
        """Whether the word was given."""
        return bool(asked.right)

    def records(self, run: "TrainedRun", asked: Namespace) -> Iterator[Measured]:
        """One record of all samples."""
        composition, options = run.composition, run.composition.sample
        if composition.data.corpus != "sums":
            raise UsageError(
                f"--right is for runs of corpus sums; this one has {composition.data.corpus}"
            )
        if not options.number:
            raise UsageError("sample.number is 0, so there is nothing to count; raise it")
        largest = open_sums(composition.data).largest
        run = run.with_average(options.weights)
        samples = run.sample()
        texts = [first_text(tokens, run.tokenizer) for tokens in samples.tokens]
        figures = shares(texts, largest)
        sampler = composition.names["sampler"]
        facts = {
            "largest": largest,
            "sample": {**asdict(options), "length": run.sample_length},
            "sampler": {"name": sampler, **composition.options("sampler")},
        }
        card = run.card("sums", units="shares from 0 to 1 with their standard errors", facts=facts)
        costs = {"nfe": samples.nfe, "seconds": samples.seconds}
        key = digest_of([facts, composition.seed])[:8]
        name = f"sums-{sampler}-number-{options.number}-step-{run.step:07d}-{key}"
        yield Measured(name, Record({**figures, **costs}, card), said(figures, len(texts)))


def first_text(tokens: Sequence[int], tokenizer: "Tokenizer") -> str:
    """The text from the beginning of a document to its end."""
    ids = list(tokens)
    if ids[:1] == [tokenizer.bos_id]:
        ids = ids[1:]
    end = ids.index(tokenizer.eos_id) if tokenizer.eos_id in ids else len(ids)
    return tokenizer.decode(ids[:end])


def shares(texts: Sequence[str], largest: int) -> dict[str, float | None]:
    """The three shares and their standard errors; that of unseen ones is of the right samples."""
    sums = [found for found in map(read_sum, texts) if found and max(found[:2]) <= largest]
    right = [(a, b) for a, b, result in sums if a + b == result]
    unseen = sum(split_of(a, b) != "train" for a, b in right)
    counts = {
        "well_formed": (len(sums), len(texts)),
        "right": (len(right), len(texts)),
        "unseen": (unseen, len(right)),
    }
    found: dict[str, float | None] = {}
    for name, (number, of) in counts.items():
        share = number / of if of else None
        found[name] = share
        found[f"{name}_error"] = None if share is None else math.sqrt(share * (1 - share) / of)
    return found


def said(figures: dict[str, float | None], number: int) -> str:
    """What a person reads."""
    shown = {
        name: "-"
        if figures[name] is None
        else f"{figures[name]:.3f} +- {figures[f'{name}_error']:.3f}"
        for name in ("well_formed", "right", "unseen")
    }
    return (
        f"{number} samples: {shown['well_formed']} are sums, {shown['right']} are right; of the "
        f"right ones {shown['unseen']} were not trained on"
    )
