"""`platform eval RUN --exact_match`: the share of drawn answers that equal the reference.

    prompt, answer, suffix  ->  the sampler fills in the answer  ->  its text == the answer's text

Of pairs (`--data.prompt_column`), prompt and suffix are given, and the sampler of the options draws
the rest of the row. An answer is the text up to its first end token. The standard error is that of
the mean of zeros and ones over pairs.
"""

import math
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, final

from platform_core.errors import UsageError
from platform_core.evaluation.evaluation import Evaluation, Measured
from platform_core.record.cards import Record

if TYPE_CHECKING:
    from platform_core.data.tokenizer import Tokenizer
    from platform_core.evaluation.samples import Drawn
    from platform_core.evaluation.trained import TrainedRun
    from platform_core.types import Batch

MOST_SHOWN = 3
"""Most wrong answers that are printed."""


@final
class ExactMatch(Evaluation):
    """Accuracy of generated answers, by the sampler and its options."""

    reads = (
        *("evaluate.split", "evaluate.weights", "evaluate.sequences"),
        *("sampler", "sample.batch_size", "data", "seed"),
    )

    @classmethod
    def arguments(cls, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--exact_match",
            action="store_true",
            help="draw an answer to each prompt of a run with --data.prompt_column by its sampler, "
            "and measure the share that equals the reference, instead of the bound; "
            "--evaluate.sequences is the number of pairs",
        )

    @classmethod
    def is_asked(cls, asked: Namespace) -> bool:
        return bool(asked.exact_match)

    def records(self, run: "TrainedRun", asked: Namespace) -> Iterator[Measured]:
        options = run.composition.evaluate
        split = run.data((options.split,)).split(options.split).spread(options.sequences)
        if not split.paired:
            raise UsageError(
                "--exact_match needs prompts with answers, and this text has none; give "
                "--data.prompt_column and --data.answer_column"
            )
        run = run.with_average(options.weights)
        batch = split.batch(range(len(split)))
        start = time.perf_counter()
        drawn = _answered(run, batch)
        found = Answers.of(batch, drawn.tokens, run.tokenizer)
        figures = {
            "exact_match": found.summary(),
            "items": len(split),
            "nfe": drawn.nfe,
            "nfe_per_text": drawn.nfe_per_text,
            "seconds": time.perf_counter() - start,
        }
        record = _record(run, figures)
        yield Measured(_name(record), record, _said(record, found))


@dataclass(frozen=True)
class Answers:
    """Drawn answers beside the references, as text.

    Args:
        drawn: text of each drawn answer, up to its first end.
        references: text of each true answer.
        tokens_right: share of the references' tokens, ends included, that were drawn in place.
    """

    drawn: Sequence[str]
    references: Sequence[str]
    tokens_right: float

    @classmethod
    def of(
        cls, batch: "Batch", tokens: Sequence[Sequence[int]], tokenizer: "Tokenizer"
    ) -> "Answers":
        """The answers in drawn texts `[batch, length]`, which stand where `batch.mask` is true."""
        drawn, references, right, counted = [], [], 0, 0
        for true, own, asked in zip(batch.x0.tolist(), tokens, batch.mask.tolist(), strict=True):
            places = [place for place, counts in enumerate(asked) if counts]
            answer, reference = ([row[place] for place in places] for row in (own, true))
            end = len(up_to_end(reference, tokenizer.eos_id))
            pairs = list(zip(answer, reference, strict=True))[: end + 1]
            right += sum(one == other for one, other in pairs)
            counted += len(pairs)
            drawn.append(tokenizer.decode(up_to_end(answer, tokenizer.eos_id)))
            references.append(tokenizer.decode(reference[:end]))
        return cls(drawn, references, right / counted)

    @property
    def right(self) -> list[bool]:
        """Whether each answer equals the reference."""
        return [one == other for one, other in zip(self.drawn, self.references, strict=True)]

    def summary(self) -> dict[str, float | None]:
        """The share of right answers, its standard error, and the share of right tokens."""
        number, share = len(self.right), sum(self.right) / len(self.right)
        error = math.sqrt(share * (1 - share) / (number - 1)) if number > 1 else None
        return {"share": share, "standard_error": error, "tokens_right": self.tokens_right}


def up_to_end(tokens: Sequence[int], end: int) -> list[int]:
    """The tokens before the first end token; all of them if there is none."""
    listed = list(tokens)
    return listed[: listed.index(end)] if end in listed else listed


def _answered(run: "TrainedRun", batch: "Batch") -> "Drawn":
    """The rows of a batch of pairs, with what is not given drawn by the run's sampler."""
    from platform_core.evaluation.samples import draw
    from platform_core.sampler import Prompt

    assert batch.given is not None, "pairs have given tokens"
    tokens, fixed = batch.x0, batch.given
    if not run.sampler.fills_blanks and bool((fixed[:, 1:] & ~fixed[:, :-1]).any()):
        raise UsageError(
            f"sampler {run.composition.names['sampler']} only continues a beginning, and these "
            "answers have text after them; leave out --data.suffix_column, or fill in answers with "
            "a diffusion process, such as absorbing"
        )

    def prompts(first: int, number: int) -> Prompt:
        rows = slice(first, first + number)
        device = run.accelerator.device
        return Prompt(tokens[rows].to(device), fixed[rows].to(device))

    return draw(
        run.model,
        run.sampler,
        run.accelerator,
        prompts,
        shape=(len(tokens), tokens.shape[1]),
        batch_size=run.composition.sample.batch_size,
        seed=run.composition.seed,
    )


def _record(run: "TrainedRun", figures: dict[str, Any]) -> Record:
    composition = run.composition
    evaluate = {
        name: getattr(composition.evaluate, name) for name in ("split", "weights", "sequences")
    }
    facts = {
        "sampler": {
            "name": composition.names["sampler"],
            **composition.options("sampler"),
        },
        "evaluate": evaluate,
        "sample": {"batch_size": composition.sample.batch_size},
        "data": asdict(composition.data),
        "exact_match": "share of drawn answers whose text equals the reference's; tokens_right is "
        "the share of the references' tokens, with one end each, that were drawn in place",
    }
    card = run.card("answers", units="shares from 0 to 1, and their standard errors", facts=facts)
    return Record(figures, card)


def _name(record: Record) -> str:
    card, items = record.card.facts, record.figures["items"]
    way = card["evaluate"]
    words = ["exact-match", card["sampler"]["name"], way["split"], way["weights"]]
    words += [f"{items}-pairs"] if way["sequences"] else []
    return "-".join([*words, f"step-{card['step']:07d}"])


def _said(record: Record, found: Answers) -> str:
    figures, card = record.figures, record.card.facts
    share = figures["exact_match"]
    error = share["standard_error"]
    known = "(one pair: error unknown)" if error is None else f"+- {error:.4f}"
    lines = [
        f"{figures['items']:,} answers by {card['sampler']['name']}, "
        f"{card['evaluate']['split']} text, {card['evaluate']['weights']} weights of step "
        f"{card['step']}",
        f"  exact match          {share['share']:.4f} {known}",
        f"  tokens right         {share['tokens_right']:.4f}",
        f"  {figures['nfe_per_text']:.4g} network evaluations for each answer, "
        f"{figures['seconds']:.1f} s",
    ]
    answers = zip(found.drawn, found.references, found.right, strict=True)
    wrong = [(drawn, true) for drawn, true, right in answers if not right]
    lines += [f"  wrong: {drawn!r:.60}, not {true!r:.60}" for drawn, true in wrong[:MOST_SHOWN]]
    return "\n".join(lines)
