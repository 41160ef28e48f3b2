"""`platform eval RUN --order SCORE`: the exact likelihood of text under an order of unmasking."""

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, final

from platform_core.errors import UsageError
from platform_core.evaluation.evaluation import Evaluation, Measured
from platform_core.record.cards import Record

if TYPE_CHECKING:
    from platform_core.evaluation.bound import Bound
    from platform_core.evaluation.trained import TrainedRun

RATES = ("nats_per_token", "standard_error", "bits_per_token", "bits_per_character", "perplexity")


@final
class Ordered(Evaluation):
    """-log p of text that is unmasked in an order, beside which the bound can be set."""

    reads = (
        "evaluate.split",
        "evaluate.weights",
        "evaluate.sequences",
        "evaluate.batch_size",
        "data",
        "seed",
    )

    @classmethod
    def arguments(cls, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--order",
            choices=["confidence", "margin", "entropy", "left-to-right"],
            help="measure the exact likelihood of text whose masks are replaced in this order, "
            "that of the sampler `ordered`, instead of the bound",
        )
        parser.add_argument(
            "--at_once",
            help="how many masks each call replaces: NUMBER, cosine-CALLS, linear-CALLS, "
            "threshold-P or entropy-NATS (1)",
        )

    @classmethod
    def is_asked(cls, asked: Namespace) -> bool:
        if asked.at_once is not None and asked.order is None:
            raise UsageError("--at_once is for an order; name one, such as --order confidence")
        return asked.order is not None

    def records(self, run: "TrainedRun", asked: Namespace) -> Iterator[Measured]:
        from platform_core.evaluation.bound import evaluate

        at_once = asked.at_once or "1"
        options = run.composition.evaluate
        run = run.with_average(options.weights)
        objective = _objective(run, asked.order, at_once)
        data = run.data((options.split,))
        start = time.perf_counter()
        bound = evaluate(
            objective,
            data.split(options.split),
            run.accelerator,
            sequences=options.sequences,
            batch_size=options.batch_size,
            protocol="exact",
            seed=run.composition.seed,
        )
        seconds = time.perf_counter() - start
        order = {"score": asked.order, "at_once": at_once}
        record = _record(run, bound, data, order, seconds)
        words = ["ordered", asked.order, at_once, options.split, options.weights]
        words += [f"{bound.sequences}-sequences"] if options.sequences else []
        yield Measured(
            "-".join([*words, f"step-{run.step:07d}"]), record, _said(record), in_name=IN_NAME
        )


IN_NAME = (
    *("order.score", "order.at_once", "evaluate.split", "evaluate.weights"),
    *("evaluate.sequences", "sequences", "step"),
)
"""Places of the card that the name of a measurement says."""


def _objective(run: "TrainedRun", score: Any, at_once: str) -> Any:
    """The likelihood as an objective of the run's own network.

    Raises:
        UsageError: the run has no masks or does not predict clean tokens, or at_once is unknown.
    """
    from platform_orders.objective import OrderedLikelihood

    for role, kind in OrderedLikelihood.requires.items():
        part = getattr(run.model, role)
        if not isinstance(part, kind):
            raise UsageError(
                f"--order needs a {role} that is {kind.__name__}, and that of this run, "
                f"{run.composition.names[role]}, is not; measure its bound instead"
            )
    try:
        return OrderedLikelihood(run.model, score, at_once)
    except ValueError as error:
        raise UsageError(f"--{error}") from None


def _record(
    run: "TrainedRun",
    bound: "Bound",
    data: Any,
    order: Mapping[str, str],
    seconds: float,
) -> Record:
    from platform_core.evaluation.card import bound_facts

    composition = run.composition
    card = run.card(
        "ordered likelihood",
        units="standard_error in nats per token",
        facts={"order": order, **bound_facts(bound, composition.evaluate, composition.data, data)},
    )
    summary = bound.summary()
    counts = {name: summary[name] for name in ("tokens", "characters", "sequences")}
    rates = {name: summary[name] for name in RATES}
    return Record({"ordered": rates, **counts, "seconds": seconds}, card)


def _said(record: Record) -> str:
    figures, card = record.figures, record.card.facts
    order, rates = card["order"], figures["ordered"]
    return "\n".join(
        [
            f"{card['data']['corpus']}, {card['evaluate']['split']} text, "
            f"{figures['sequences']} sequences, {figures['tokens']:,} tokens; masks replaced by "
            f"{order['score']}, {order['at_once']} at once: exact likelihood",
            f"  nats per token       {rates['nats_per_token']:.4f} "
            f"+- {rates['standard_error']:.4f} (over sequences; no other error)",
            f"  bits per character   {rates['bits_per_character']:.4f}",
            f"  perplexity           {rates['perplexity']:.3f}",
        ]
    )
