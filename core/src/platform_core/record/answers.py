"""The metric of answers: the share that equals the reference, for tables; imports no torch."""

from platform_core.record.cards import NOTED, UNSAID, Family, Measurement, Metric, recorded

FACTS = (
    *("evaluate.split", "evaluate.weights", "evaluate.sequences", "items"),
    *("data.corpus", "data.path", "data.prompt_column", "data.answer_column", "data.suffix_column"),
)


def _title(measurement: Measurement) -> str:
    corpus, items = measurement.fact("data.corpus"), measurement.fact("items")
    return "Answers" if UNSAID in (corpus, items) else f"Answers of {corpus}, {items} pairs"


def _keys(measurement: Measurement) -> tuple[str, ...]:
    return FACTS


ANSWERS = Family("answers", _title, words="--exact_match", noted=NOTED, by_sampler=True)

EXACT_MATCH = Metric(
    "exact_match",
    "exact match",
    "exact_match.share",
    recorded("exact_match.standard_error"),
    _keys,
    ANSWERS,
    lower_is_better=False,
)
