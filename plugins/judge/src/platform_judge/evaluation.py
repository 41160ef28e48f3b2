"""`platform eval RUN --judge MODEL`: figures of a run's samples under another model."""

import math
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, final

from platform_core.errors import UsageError
from platform_core.evaluation.evaluation import Evaluation, Measured
from platform_core.record.cards import Card, Record

if TYPE_CHECKING:
    from platform_core.data.sequences import TokenSplit
    from platform_core.data.tokenizer import Tokenizer
    from platform_core.evaluation.samples import Samples
    from platform_core.evaluation.trained import TrainedRun
    from platform_judge.generative import Judged
    from platform_judge.judge import Judge

LONGEST = 1024
"""Default of the most tokens of a text that a judge reads, as in the papers."""


@final
class Judging(Evaluation):
    """Figures of samples, real text and shuffled text under another model."""

    reads = ("sample", "sampler", "data", "evaluate.split", "evaluate.batch_size", "seed")

    def __init__(self) -> None:
        self._judges: dict[str, Judge] = {}
        self._controls: dict[str, Mapping[str, Judged]] = {}

    @classmethod
    def arguments(cls, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--judge",
            metavar="MODEL",
            help="judge --sample.number samples instead of computing the bound: perplexity of the "
            "samples under another model, beside real and shuffled text of evaluate.split. MODEL "
            "is a run of process ar, a folder or name of transformers, or a .gguf file",
        )
        parser.add_argument(
            "--judge_length",
            type=int,
            metavar="N",
            help="most tokens of the judge that it reads of each text (default: the length that "
            f"it was made for, up to {LONGEST})",
        )

    @classmethod
    def is_asked(cls, asked: Namespace) -> bool:
        if asked.judge is None and asked.judge_length is not None:
            raise UsageError("--judge_length is for a judge; name one with --judge MODEL")
        return asked.judge is not None

    def records(self, run: "TrainedRun", asked: Namespace) -> Iterator[Measured]:
        from platform_judge.opening import open_judge

        options = run.composition.sample
        if not options.number:
            raise UsageError("sample.number is 0, so there is nothing to judge; raise it")
        run = run.with_average(options.weights)
        if asked.judge not in self._judges:
            opened = open_judge(asked.judge, run.accelerator, run.composition.plugins)
            self._judges[asked.judge] = opened
        judge = self._judges[asked.judge]
        length = _length(asked.judge_length, judge.identity.context)
        texts = _texts(run)
        begun = time.perf_counter()
        batch_size = run.composition.evaluate.batch_size
        judged = self._judged(judge, texts, length=length, batch_size=batch_size)
        figures, mauve_said = _figures(judged)
        costs = {
            "nfe": texts.samples.nfe,
            "nfe_per_text": texts.samples.nfe_per_text,
            "seconds": texts.samples.seconds,
            "seconds_judging": time.perf_counter() - begun,
        }
        card = _card(run, judge, texts, length=length, mauve=mauve_said)
        record = Record({**figures, **costs}, card)
        yield Measured(_name(record), record, _table(record))

    def _judged(self, judge: "Judge", texts: "_Texts", **options: int) -> Mapping[str, "Judged"]:
        """The judge's figures of every set of texts; real ones are read once for many points."""
        from platform_core.record.files import digest_of

        key = digest_of([judge.identity.summary(), texts.real, texts.seed, options])
        if key not in self._controls:
            self._controls[key] = texts.controls(judge, **options)
        return {"samples": texts.judged(judge, **options), **self._controls[key]}


def _figures(
    judged: Mapping[str, "Judged"],
) -> tuple[dict[str, dict[str, float | None]], str]:
    """The figures of each set of texts, and how MAUVE was computed or why it was not."""
    from platform_judge.generative import mauve, without_mauve

    reference = judged["reference"]
    reason = without_mauve(min(len(found.features) for found in judged.values()))
    figures: dict[str, dict[str, float | None]] = {
        name: {
            **found.summary(),
            "mauve": None if reason else mauve(found.features, reference.features),
        }
        for name, found in judged.items()
        if name != "reference"
    }
    said = (
        reason
        or f"of the last layer's features at the end of each text, against "
        f"{len(reference.features)} real texts other than those judged"
    )
    return figures, said


def _card(run: "TrainedRun", judge: "Judge", texts: "_Texts", *, length: int, mauve: str) -> Card:
    composition = run.composition
    facts = {
        "judge": judge.identity.summary(),
        "judge_length": length,
        "sampler": {
            "name": composition.names["sampler"],
            **composition.options("sampler"),
        },
        "sample": {**asdict(composition.sample), "length": texts.length},
        "split": composition.evaluate.split,
        "data": asdict(composition.data),
        "perplexity": "exp(nats / tokens) of tokens 2.. of the judge, without EOS after the "
        "first; standard_error in nats per token, over texts",
        "entropy": "of the run's own tokens, nats, mean over texts",
        "shuffled": "the real texts, each with its tokens in a random order",
        "mauve": mauve,
    }
    units = "standard_error in nats per token of the judge; entropies and their errors in nats"
    return run.card("judged", units=units, facts=facts)


def _length(asked: int | None, context: int | None) -> int:
    """The most tokens that the judge reads of a text."""
    if asked is None:
        return min(context or LONGEST, LONGEST)
    if asked < 2:
        raise UsageError(f"--judge_length is {asked}; a judge reads at least 2 tokens")
    if context is not None and asked > context:
        raise UsageError(f"--judge_length is {asked}, but this judge reads at most {context}")
    return asked


@dataclass(frozen=True)
class _Texts:
    """All texts that are judged.

    Args:
        samples: samples of the run.
        length: tokens in each sample.
        real: texts of the corpus, twice as many as samples where the corpus has as many.
        seed: seed of the shuffling.
        tokenizer: tokenizer of all texts.
    """

    samples: "Samples"
    length: int
    real: list[list[int]]
    seed: int
    tokenizer: "Tokenizer"

    def judged(self, judge: "Judge", **options: Any) -> "Judged":
        """The judge's figures of the samples."""
        from platform_judge.generative import judge_texts

        return judge_texts(judge, self.samples.tokens, self.tokenizer, **options)

    def controls(self, judge: "Judge", **options: Any) -> dict[str, "Judged"]:
        """The judge's figures of real texts, shuffled texts and other real texts."""
        from platform_judge.generative import judge_texts, shuffled

        real = self.real[::2]
        sets = {
            "real": real,
            "shuffled": shuffled(real, self.seed),
            "reference": self.real[1::2] or real,
        }
        return {
            name: judge_texts(judge, texts, self.tokenizer, **options)
            for name, texts in sets.items()
        }


def _texts(run: "TrainedRun") -> _Texts:
    """The samples of a run, and real texts of its corpus."""
    from platform_core.data.sequences import load_data

    composition, length = run.composition, run.sample_length
    options, subset = composition.sample, composition.evaluate.split
    text = replace(composition.data, length=length)
    # Load the corpus before the network, so that a missing corpus is found before sampling.
    split = load_data(text, run.tokenizer, run.labels, (subset,)).split(subset)
    samples = run.sample()
    real = _real(split, 2 * options.number, options.label)
    return _Texts(samples, length, real, composition.seed, run.tokenizer)


def _real(split: "TokenSplit", number: int, label: str | None) -> list[list[int]]:
    """`number` texts of a split, or of one label in it, spread evenly; all if there are fewer."""
    import numpy as np

    from platform_core.data.sequences import LabelledSplit
    from platform_core.guidance import label_number

    rows = np.arange(len(split))
    if label is not None and isinstance(split, LabelledSplit):
        rows = rows[split.labels(rows.tolist()).numpy() == label_number(split.names, label)]
        if not len(rows):
            raise UsageError(f"the evaluation text has none of label {label}; choose another split")
    places = np.linspace(0, len(rows), min(number, len(rows)), endpoint=False).astype(np.int64)
    batch = split.batch(rows[places].tolist())
    return [row[kept].tolist() for row, kept in zip(batch.x0, batch.mask, strict=True)]


def _name(record: Record) -> str:
    card = record.card.facts
    sample, judge = card["sample"], card["judge"]
    return (
        f"judged-by-{judge['name']}-{card['sampler']['name']}-nfe-{record.figures['nfe']}-"
        f"number-{sample['number']}-{sample['weights']}-step-{card['step']:07d}"
    )


def _with_error(value: str, error: float, form: str) -> str:
    """A value and its standard error, which a single text does not have."""
    return f"{value} +- {error:{form}}" if math.isfinite(error) else f"{value} (1 text)"


def _table(record: Record) -> str:
    figures, card = record.figures, record.card.facts
    judge, sample = card["judge"], card["sample"]
    lines = [
        f"{sample['number']} samples of {sample['length']} tokens by {card['sampler']['name']}, "
        f"{sample['weights']} weights of step {card['step']}; judge {judge['name']} "
        f"({judge['network']}), at most {card['judge_length']} of its tokens",
        f"  {'':10}{'perplexity':>20}{'entropy':>18}{'bits/character':>16}{'MAUVE':>8}",
    ]
    for name in ("samples", "real", "shuffled"):
        row = figures[name]
        perplexity = _with_error(f"{row['perplexity']:.4g}", row["perplexity_error"], ".2g")
        entropy = _with_error(f"{row['entropy']:.3f}", row["entropy_error"], ".3f")
        near = "-" if row["mauve"] is None else f"{row['mauve']:.3f}"
        lines.append(
            f"  {name:10}{perplexity:>20}{entropy:>18}{row['bits_per_character']:>16.3f}{near:>8}"
        )
    if figures["samples"]["mauve"] is None:
        lines.append(f"  no MAUVE: {card['mauve']}")
    lines.append(
        f"  {figures['nfe_per_text']:.4g} network evaluations for each text, "
        f"{figures['seconds']:.1f} s; "
        f"judging {figures['seconds_judging']:.1f} s"
    )
    return "\n".join(lines)
