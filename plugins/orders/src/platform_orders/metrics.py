"""Metrics of the exact likelihood under an order, for tables; imports no torch."""

import math

from platform_core.record.bounds import TOKENS
from platform_core.record.cards import NOTED, UNSAID, Family, Measurement, Metric, recorded

ORDER = ("order.score", "order.at_once")
FACTS = ("evaluate.split", "evaluate.weights", "label", "conditional", *TOKENS)


def _title(measurement: Measurement) -> str:
    facts = [measurement.fact(key) for key in ("data.corpus", "evaluate.split", *ORDER)]
    if UNSAID in facts:
        return measurement.name
    corpus, split, score, at_once = facts
    return f"{corpus}, {split} text: exact likelihood by {score}, {at_once} at once"


FAMILY = Family("ordered", _title, words="--order SCORE", noted=NOTED)


def _keys(measurement: Measurement) -> tuple[str, ...]:
    """The order is a fact too, so that each order has a table of its own."""
    return (*ORDER, *FACTS)


def _character_error(measurement: Measurement) -> float | None:
    places = ("ordered.standard_error", "tokens", "characters")
    nats, tokens, characters = (measurement.figure(place) for place in places)
    if nats is None or tokens is None or not characters:
        return None
    return nats * tokens / characters / math.log(2)


METRICS = (
    Metric(
        "ordered_bits_per_character",
        "bits per character, in order",
        "ordered.bits_per_character",
        _character_error,
        _keys,
        FAMILY,
    ),
    Metric(
        "ordered_nats_per_token",
        "nats per token, in order",
        "ordered.nats_per_token",
        recorded("ordered.standard_error"),
        _keys,
        FAMILY,
        usual=False,
    ),
)
"""Numbers of the exact likelihood under an order; they are of the law of a sampler, so they stand
in tables of their own, not among bounds.
"""
