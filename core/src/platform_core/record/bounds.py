"""The metrics of a bound on -log p of text, for tables.

Figures per token are comparable only on the same tokens. Bits per character of a whole split are
comparable on the same characters, however these are cut into tokens and sequences: they are the
length of a code for one text.
"""

import math

from platform_core.record.cards import RESULT, UNSAID, Family, Measurement, Metric, nats_error

WAY = ("evaluate.split", "evaluate.protocol", "evaluate.weights", "label", "conditional")
TOKENS = ("fingerprint", "unknown_tokens", "sequences", "tokens")


def _per_token(measurement: Measurement) -> tuple[str, ...]:
    return (*WAY, *TOKENS)


def _per_character(measurement: Measurement) -> tuple[str, ...]:
    """The facts for bits per character; for a part of the split, its tokens are facts too."""
    if measurement.fact("evaluate.sequences") == 0:
        return (*WAY, "evaluate.sequences", "text", "unknown_tokens", "characters")
    return (*WAY, "evaluate.sequences", *TOKENS)


def _bits_error(measurement: Measurement) -> float | None:
    nats = nats_error(measurement)
    return None if nats is None else nats / math.log(2)


def _character_error(measurement: Measurement) -> float | None:
    bits, figures = _bits_error(measurement), measurement.record.figures
    return None if bits is None else bits * figures["tokens"] / figures["characters"]


def _perplexity_error(measurement: Measurement) -> float | None:
    nats, perplexity = nats_error(measurement), measurement.figure("perplexity")
    return None if nats is None or perplexity is None else nats * perplexity


def title_of(measurement: Measurement) -> str:
    """The text, protocol and weights of a bound, as the title of a table."""
    facts = [measurement.fact(key) for key in ("data.corpus", "evaluate.split")]
    how = [measurement.fact(key) for key in ("evaluate.protocol", "evaluate.weights")]
    if UNSAID in (*facts, *how):
        return "At the end of training" if measurement.name == RESULT else measurement.name
    return f"{facts[0]}, {facts[1]} text: {how[0]} protocol, {how[1]} weights"


BOUND = Family("bound", title_of)
"""The family of the metrics in `BOUNDS`."""

NO_BOUND = "no bound"
"""The kind of the result of a run whose objective says that it has no bound on -log p."""


BOUNDS = (
    Metric(
        "bits_per_character",
        "bits per character",
        "bits_per_character",
        _character_error,
        _per_character,
        BOUND,
    ),
    Metric(
        "perplexity", "perplexity per token", "perplexity", _perplexity_error, _per_token, BOUND
    ),
    Metric(
        "bits_per_token",
        "bits per token",
        "bits_per_token",
        _bits_error,
        _per_token,
        BOUND,
        usual=False,
    ),
    Metric(
        "nats_per_token",
        "nats per token",
        "nats_per_token",
        nats_error,
        _per_token,
        BOUND,
        usual=False,
    ),
)
