"""Evaluations that `platform eval RUN` offers: the bound here, others from plugins.

    command line -> the one Evaluation that it asks for -> Measured -> evaluations/

An evaluation reads a `TrainedRun` and yields one `Measured` for each measurement. `platform eval`
saves each measurement, draws its figure and prints it.
"""

import math
import time
from abc import ABC, abstractmethod
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, final, get_args

from platform_core.record.cards import Record

if TYPE_CHECKING:
    from platform_core.evaluation.bound import Bound
    from platform_core.evaluation.trained import TrainedRun
    from platform_core.objective import Protocol


@dataclass(frozen=True)
class Measured:
    """One measurement that an evaluation yields.

    Args:
        name: what was measured and how in words, fit for a file name. A digest of what the words
            leave open is added; a later measurement that is made alike replaces this one.
        record: the figures, and the card that says how they were made (`TrainedRun.card`).
        said: the measurement as text for a person.
        figure: data of a plot that is kept beside the record.
        in_name: places of the card that the name says, such as "evaluate.split".
    """

    name: str
    record: Record
    said: str
    figure: Mapping[str, Any] | None = None
    in_name: tuple[str, ...] = ()


class Evaluation(ABC):
    """One way to measure a trained network.

    `reads` lists the sections and single options of the composition that the evaluation depends on,
    such as "sample" or "evaluate.split"; an option that is given but not listed is refused.
    """

    reads: ClassVar[tuple[str, ...]]

    @classmethod
    @abstractmethod
    def arguments(cls, parser: ArgumentParser) -> None:
        """Add this evaluation's own options to the command line, without importing torch."""

    @classmethod
    @abstractmethod
    def is_asked(cls, asked: Namespace) -> bool:
        """Whether the command line asks for this evaluation; if for none, the bound is computed."""

    @abstractmethod
    def records(self, run: "TrainedRun", asked: Namespace) -> Iterator[Measured]:
        """Measure the run and yield one measurement after another.

        Of several processes (torchrun) every one measures, and the first one's records are kept;
        all have to call what the run offers (`sample`, `evaluate`), which divides the work.

        Raises:
            UsageError: the options contradict each other or do not suit the run.
        """


@final
class BoundOnText(Evaluation):
    """The bound on -log p of text: the run's own text, or the corpora that `--on` names."""

    reads = ("evaluate", "data", "objective", "seed")

    @classmethod
    def arguments(cls, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--on",
            nargs="+",
            default=[],
            metavar="CORPUS[=PATH]",
            help="other texts to evaluate, one after another: corpora of --data.corpus, each with "
            "its path if it has one; json, parquet and saved have their text in --data.column; "
            "zero-shot is the seven corpora of published tables",
        )
        parser.add_argument(
            "--side_by_side",
            action="store_true",
            help="also compute the bound under the other --evaluate.protocol",
        )

    @classmethod
    def is_asked(cls, asked: Namespace) -> bool:
        return bool(asked.on or asked.side_by_side)

    def records(self, run: "TrainedRun", asked: Namespace) -> Iterator[Measured]:
        from platform_core.data.sequences import load_data
        from platform_core.evaluation.figures import levels_record
        from platform_core.evaluation.texts import texts
        from platform_core.objective import Protocol

        options = run.composition.evaluate
        run = run.with_average(options.weights)
        # Load all texts before the network, so that a missing text is found before any computation.
        found = [
            (text, load_data(text.options, run.tokenizer, run.labels, (options.split,)))
            for text in texts(asked.on, run.composition.data)
        ]
        others: list[Protocol] = [name for name in get_args(Protocol) if name != options.protocol]
        for text, data in found:
            for protocol in [options.protocol, *(others if asked.side_by_side else ())]:
                start = time.perf_counter()
                bound = run.evaluate(data=data, protocol=protocol)
                seconds = time.perf_counter() - start
                record = self._record(run, bound, text.options, data, protocol, seconds)
                subset = f"{text.options.corpus} {options.split}"
                figure = levels_record(bound, subset, protocol) if bound.levels else None
                name = _name(text.name, run, bound, protocol)
                yield Measured(name, record, _said(record), figure, IN_NAME)

    def _record(
        self,
        run: "TrainedRun",
        bound: "Bound",
        text: Any,
        data: Any,
        protocol: "Protocol",
        seconds: float,
    ) -> Record:
        from platform_core.evaluation.card import bound_facts, bound_kind

        way = replace(run.composition.evaluate, protocol=protocol)
        card = run.card(
            bound_kind(bound),
            units="standard_error, noise_error and levels in nats per token",
            facts=bound_facts(bound, way, text, data),
        )
        return Record({**bound.summary(), "seconds": seconds}, card)


IN_NAME = (
    *("evaluate.split", "evaluate.weights", "evaluate.protocol", "evaluate.draws"),
    *("noise_levels_per_sequence", "evaluate.sequences", "sequences", "step"),
)
"""Places of the card of a bound that its name says."""


def _name(text: str, run: "TrainedRun", bound: "Bound", protocol: str) -> str:
    """Name a measurement by the options that a reader tells measurements of a run apart by."""
    options = run.composition.evaluate
    words = [text] if text else []
    words += [options.split, options.weights, protocol]
    words += [f"{bound.noise_levels}-draws"] if bound.noise_levels > 1 else []
    words += [f"{bound.sequences}-sequences"] if options.sequences else []
    return "-".join([*words, f"step-{run.step:07d}"])


def _said(record: Record) -> str:
    figures, card = record.figures, record.card.facts
    way = card["evaluate"]
    what = f"{way['protocol']} bound" if card["kind"] == "bound" else "exact value"
    draws, error = card["noise_levels_per_sequence"], figures["standard_error"]
    read = f" at {draws} noise levels each" if draws > 1 else ""
    unknown = card["unknown_tokens"]
    lacking = f", {unknown:,} of them [UNK]" if unknown else ""
    path = f" of {card['data']['path']}" if card["data"]["path"] else ""
    lines = [
        f"{card['data']['corpus']}{path}, {way['split']} text, {figures['sequences']} sequences"
        f"{read}, {figures['tokens']:,} tokens{lacking}; {way['weights']} weights of step "
        f"{card['step']}; {what}",
        f"  nats per token       {_with_error(figures['nats_per_token'], error)}",
        f"  bits per token       {_with_error(figures['bits_per_token'], error / math.log(2))}",
        f"  bits per character   {figures['bits_per_character']:.4f}",
        f"  perplexity           {figures['perplexity']:.3f}",
    ]
    if draws > 1:
        lines.append(f"  error from noise     {figures['noise_error']:.4f} nats per token")
    return "\n".join(lines)


def _with_error(value: float, error: float) -> str:
    known = f"+- {error:.4f}" if math.isfinite(error) else "(one sequence: error unknown)"
    return f"{value:.4f} {known}"
