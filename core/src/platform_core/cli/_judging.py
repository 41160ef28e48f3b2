"""`platform eval RUN --judge MODEL`: what a judge makes of a run's samples."""

import time
from argparse import ArgumentParser, Namespace
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from platform_core.compose import Composition
from platform_core.directory import RunDirectory
from platform_core.errors import UsageError
from platform_core.files import digest_of, json_text
from platform_core.results import keep_evaluation

if TYPE_CHECKING:
    from accelerate import Accelerator

    from platform_core.data import TokenSplit
    from platform_core.generate import Samples
    from platform_core.generative import Judged
    from platform_core.judge import Judge
    from platform_core.tokenizer import Tokenizer

LONGEST = 1024
"""Tokens that a judge reads of a text at most, as in the papers, where nobody says otherwise."""


def arguments(parser: ArgumentParser) -> None:
    """The words that ask for a judge."""
    parser.add_argument(
        "--judge",
        metavar="MODEL",
        help="judge --sample.number samples instead of computing the bound: their perplexity under "
        "another model, with real and shuffled text of evaluate.split beside it. MODEL is a run of "
        "process ar, a folder or name of transformers, or a .gguf file",
    )
    parser.add_argument(
        "--judge_length",
        type=int,
        metavar="N",
        help="of each text, the judge reads at most so many of its own tokens (default: as many as "
        f"it was made for, up to {LONGEST})",
    )


def judge_samples(directory: RunDirectory, composition: Composition, asked: Namespace) -> int:
    """Prints what the judge says, and keeps it in the run's `evaluations/`."""
    options = composition.sample
    if not options.number:
        raise UsageError("sample.number is 0, so there is nothing to judge; raise it")
    if asked.on or asked.side_by_side:
        raise UsageError("--on and --side_by_side are of the bound; leave them out with --judge")

    from platform_core import runtime
    from platform_core.generative import mauve, without_mauve
    from platform_core.judge import open_judge
    from platform_core.provenance import tokenizer_card

    accelerator = runtime.start(composition.train.precision)
    judge = open_judge(asked.judge, accelerator, composition.plugins)
    length = _length(asked.judge_length, judge.identity.context)
    texts, step = _texts(directory, composition, accelerator)
    begun = time.perf_counter()
    judged = texts.judged(judge, length=length, batch_size=composition.evaluate.batch_size)
    reference = judged.pop("reference")
    number = min(len(found.features) for found in (*judged.values(), reference))
    reason = without_mauve(number)
    figures: dict[str, dict[str, float | None]] = {
        name: {
            **found.summary(),
            "mauve": None if reason else mauve(found.features, reference.features),
        }
        for name, found in judged.items()
    }
    record = {
        **figures,
        "nfe": texts.samples.nfe,
        "seconds": texts.samples.seconds,
        "seconds_judging": time.perf_counter() - begun,
        "card": {
            "kind": "judged",
            "judge": judge.identity.summary(),
            "judge_length": length,
            "parts": dict(composition.names),
            "sampler": {
                "name": composition.names["sampler"],
                **composition.factories["sampler"].keywords,
            },
            "sample": {**asdict(options), "length": texts.length},
            "tokenizer": tokenizer_card(texts.tokenizer),
            "step": step,
            "split": composition.evaluate.split,
            "data": asdict(composition.data),
            "seed": composition.seed,
            "perplexity": "exp(nats / tokens) of tokens 2.. of the judge, without EOS after the "
            "first; standard_error in nats per token, over texts",
            "entropy": "of the run's own tokens, nats, mean over texts",
            "shuffled": "the real texts, each with its tokens in a random order",
            "mauve": reason
            or f"of the last layer's features at the end of each text, against "
            f"{len(reference.features)} real texts other than those judged",
            **runtime.describe(accelerator),
        },
    }
    if accelerator.is_main_process:
        kept = keep_evaluation(directory, _name(record), record)
        print(json_text(record) if asked.json else f"{_table(record)}\nkept in {kept}")
    return 0


def _length(asked: int | None, context: int | None) -> int:
    """The most tokens of a text that the judge reads."""
    if asked is None:
        return min(context or LONGEST, LONGEST)
    if asked < 2:
        raise UsageError(f"--judge_length is {asked}; a judge reads at least 2 tokens")
    if context is not None and asked > context:
        raise UsageError(f"--judge_length is {asked}, but this judge reads at most {context}")
    return asked


@dataclass(frozen=True)
class _Texts:
    """All that is judged.

    Args:
        samples: of the run.
        length: tokens in each.
        real: texts of the corpus, twice as many as samples where it has them.
        seed: of the shuffling.
        tokenizer: of all of them.
    """

    samples: "Samples"
    length: int
    real: list[list[int]]
    seed: int
    tokenizer: "Tokenizer"

    def judged(self, judge: "Judge", **options: Any) -> dict[str, "Judged"]:
        """What the judge makes of them: samples, real texts, shuffled ones, and other real ones."""
        from platform_core.generative import judge_texts, shuffled

        real = self.real[::2]
        sets = {
            "samples": self.samples.tokens,
            "real": real,
            "shuffled": shuffled(real, self.seed),
            "reference": self.real[1::2] or real,
        }
        return {
            name: judge_texts(judge, texts, self.tokenizer, **options)
            for name, texts in sets.items()
        }


def _texts(
    directory: RunDirectory, composition: Composition, accelerator: "Accelerator"
) -> tuple[_Texts, int]:
    """The samples and the real texts, and the step of the run's weights."""
    from platform_core.data import load_data
    from platform_core.generate import generate
    from platform_core.tokenizer import load_tokenizer
    from platform_core.trained import load_trained

    options, labels = composition.sample, directory.label_names()
    length = options.length or composition.data.length
    data = load_data(
        replace(composition.data, length=length),
        load_tokenizer(directory.tokenizer),
        labels,
        (composition.evaluate.split,),
    )
    built, step = load_trained(
        composition,
        directory,
        accelerator,
        vocab_size=data.tokenizer.vocab_size,
        average=options.weights,
    )
    samples = generate(
        built.model,
        built.sampler,
        data.tokenizer,
        accelerator,
        options,
        length=length,
        seed=composition.seed,
        labels=labels,
    )
    split = data.split(composition.evaluate.split)
    real = _real(split, 2 * options.number, options.label)
    return _Texts(samples, length, real, composition.seed, data.tokenizer), step


def _real(split: "TokenSplit", number: int, label: str | None) -> list[list[int]]:
    """So many texts of a split, or of one label in it, spread evenly; all if there are fewer."""
    import numpy as np

    from platform_core.data import LabelledSplit
    from platform_core.guidance import label_number

    rows = np.arange(len(split))
    if label is not None and isinstance(split, LabelledSplit):
        rows = rows[split.labels(rows.tolist()).numpy() == label_number(split.names, label)]
        if not len(rows):
            raise UsageError(f"the evaluation text has none of label {label}; choose another split")
    places = np.linspace(0, len(rows), min(number, len(rows)), endpoint=False).astype(np.int64)
    ids, counts = split.fetch(rows[places].tolist())
    return [row[kept].tolist() for row, kept in zip(ids, counts, strict=True)]


def _name(record: dict[str, Any]) -> str:
    """Who judged what; the key at its end is of all options, so that none replaces another."""
    card = record["card"]
    sample, judge = card["sample"], card["judge"]
    options = [card[key] for key in ("judge", "judge_length", "sampler", "sample", "split", "seed")]
    key = digest_of([*options, card["data"]])[:8]
    return (
        f"judged-by-{judge['name']}-{card['sampler']['name']}-nfe-{record['nfe']}-"
        f"number-{sample['number']}-{sample['weights']}-step-{card['step']:07d}-{key}"
    )


def _table(record: dict[str, Any]) -> str:
    card = record["card"]
    judge, sample = card["judge"], card["sample"]
    lines = [
        f"{sample['number']} samples of {sample['length']} tokens by {card['sampler']['name']}, "
        f"{sample['weights']} weights of step {card['step']}; judge {judge['name']} "
        f"({judge['network']}), at most {card['judge_length']} of its tokens",
        f"  {'':10}{'perplexity':>20}{'entropy':>18}{'bits/character':>16}{'MAUVE':>8}",
    ]
    for name in ("samples", "real", "shuffled"):
        row = record[name]
        perplexity = f"{row['perplexity']:.4g} +- {row['perplexity_error']:.2g}"
        entropy = f"{row['entropy']:.3f} +- {row['entropy_error']:.3f}"
        near = "-" if row["mauve"] is None else f"{row['mauve']:.3f}"
        lines.append(
            f"  {name:10}{perplexity:>20}{entropy:>18}{row['bits_per_character']:>16.3f}{near:>8}"
        )
    if record["samples"]["mauve"] is None:
        lines.append(f"  no MAUVE: {card['mauve']}")
    lines.append(
        f"  {record['nfe']} network evaluations for each batch, {record['seconds']:.1f} s; "
        f"judging {record['seconds_judging']:.1f} s"
    )
    return "\n".join(lines)
