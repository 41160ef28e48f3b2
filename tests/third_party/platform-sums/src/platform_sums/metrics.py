"""The numbers that tables show of samples; imports no torch."""

from platform_core.record.cards import Family, Measurement, Metric, recorded


def title(measurement: Measurement) -> str:
    """The title of a table."""
    return f"Sums of numbers up to {measurement.fact('largest')}"


def keys(measurement: Measurement) -> tuple[str, ...]:
    """The facts that two numbers must share to stand in one column."""
    return ("largest", "sample.number", "sample.length", "sample.weights", "sample.prompt")


FAMILY = Family("sums", title, words="--right", by_sampler=True)


def metric(name: str, head: str, *beside: Metric) -> Metric:
    """A share of samples, of which more is better."""
    error = recorded(f"{name}_error")
    return Metric(name, head, name, error, keys, FAMILY, lower_is_better=False, beside=beside)


WELL_FORMED = metric("well_formed", "samples that are sums")
RIGHT = metric("right", "samples that are right", WELL_FORMED)
UNSEEN = metric("unseen", "right ones not trained on", RIGHT)
METRICS = (WELL_FORMED, RIGHT, UNSEEN)
