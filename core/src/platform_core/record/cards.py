"""Cards: what numbers must have in common to stand in one column of a table.

    alike(a, b)  iff  every key that the metric's value depends on is the same in both cards

A key is a place in a card (`evaluate.protocol`) or one of the counts beside it. Figures of a token
need the same tokens; bits per character of a whole split need the same characters, whatever cuts
and packs them: they are the length of a code for one text. Seeds, versions and precision are worth
a note. What only one of two cards says is a difference. Used by `platform compare` and `platform
report`; no torch.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from platform_core.errors import UsageError, did_you_mean
from platform_core.record.directory import RunDirectory
from platform_core.record.results import EVALUATIONS, evaluations, read_result

RESULT = "result"
"""The name of what a run measured at its end; others have those of their evaluations."""

UNSAID = "not said"

Facts = dict[str, Any]
Differences = dict[str, Any]


@dataclass(frozen=True)
class Measurement:
    """Numbers of a run that were measured together.

    Args:
        run: the run, as it was asked for.
        name: `RESULT`, or that of the evaluation.
        record: the numbers; errors of bounds in nats per token.
        card: how they were made.
    """

    run: str
    name: str
    record: Mapping[str, Any]
    card: Mapping[str, Any]

    def fact(self, key: str) -> Any:
        """What the card says at a place, or the number of that name."""
        value = at(self.card, key)
        return at(self.record, key) if value == UNSAID else value

    @property
    def exact(self) -> bool:
        """Whether it is the negative log-likelihood itself, not a bound on it."""
        return bool(self.fact("noise_levels_per_sequence") == 0)


@dataclass(frozen=True)
class Metric:
    """A number that tables show.

    Args:
        name: as it is asked for.
        title: in heads of columns.
        place: in records, with dots.
        error: its standard error.
        keys: those that its value depends on.
        lower_is_better: as for losses.
    """

    name: str
    title: str
    place: str
    error: Callable[[Measurement], float | None]
    keys: Callable[[Measurement], tuple[str, ...]]
    lower_is_better: bool = True

    def value(self, measurement: Measurement) -> float | None:
        """The number, if it was measured and is finite."""
        value = at(measurement.record, self.place)
        return None if value in (None, UNSAID) else float(value)

    def facts(self, measurement: Measurement) -> Facts:
        """What has to be the same for two numbers to stand in one column."""
        return {key: measurement.fact(key) for key in self.keys(measurement)}

    def setting(self, measurement: Measurement) -> str:
        """The facts as one value that is the same where they are."""
        return repr(sorted(self.facts(measurement).items()))

    def differences(self, measurement: Measurement, other: Measurement) -> Differences:
        """Pairs of facts that are not the same: this one's, the other's. What neither says is.

        Of a digest, the options behind it are named where they differ.
        """
        keys = [key for key in self.keys(measurement) if key in self.keys(other)]
        found: Differences = {}
        for key in keys:
            for named in _apart([key], measurement, other):
                found |= dict.fromkeys(_apart(BEHIND.get(named, ()), measurement, other) or [named])
        return {key: (measurement.fact(key), other.fact(key)) for key in found}


def at(values: Any, place: str) -> Any:
    """What nested mappings hold at a place `a.b.c`."""
    for part in place.split("."):
        values = values.get(part, UNSAID) if isinstance(values, Mapping) else UNSAID
    return values


def _apart(keys: Sequence[str], measurement: Measurement, other: Measurement) -> list[str]:
    return [key for key in keys if measurement.fact(key) != other.fact(key)]


SOURCE = ("data.corpus", "data.path", "data.column")
CUT = ("tokenizer.digest", "data.length", "data.packing", "data.marks", "data.document_masks")

BEHIND: Mapping[str, tuple[str, ...]] = {"text": SOURCE, "fingerprint": (*SOURCE, *CUT, "label")}
"""What a reader is told of two digests that differ."""

WAY = ("evaluate.split", "evaluate.protocol", "evaluate.weights", "label", "conditional")
TOKENS = ("fingerprint", "unknown_tokens", "sequences", "tokens")

SAMPLES = (
    "sample.number",
    "sample.length",
    "sample.weights",
    "sample.prompt",
    "sample.template",
    "sample.label",
    "tokenizer.digest",
)
JUDGE = ("judge.digest", "judge_length", "perplexity")
REFERENCE = ("judge.digest", "judge_length", "split", *SOURCE, "mauve")

NOTEWORTHY = (
    "seed",
    "step",
    "noise_levels_per_sequence",
    "data.length",
    "tokenizer.kind",
    "device",
    "precision",
    "judge.dtype",
    "packages.torch",
    "packages.dlm-platform-core",
)
"""Differences that do not make numbers incomparable, but are told."""


def _per_token(measurement: Measurement) -> tuple[str, ...]:
    return (*WAY, *TOKENS)


def _per_character(measurement: Measurement) -> tuple[str, ...]:
    """Of a part of the split, which part it is depends on how it is cut."""
    if measurement.fact("evaluate.sequences") == 0:
        return (*WAY, "evaluate.sequences", "text", "unknown_tokens", "characters")
    return (*WAY, "evaluate.sequences", *TOKENS)


def _judged(measurement: Measurement) -> tuple[str, ...]:
    return (*JUDGE, *SAMPLES)


def _sampled(measurement: Measurement) -> tuple[str, ...]:
    return SAMPLES


def _mauve(measurement: Measurement) -> tuple[str, ...]:
    return (*REFERENCE, *SAMPLES)


def _nats_error(measurement: Measurement) -> float | None:
    """One sequence has no spread: its error is unknown, not 0."""
    error = measurement.record.get("standard_error")
    return None if error is None or measurement.fact("sequences") == 1 else float(error)


def _bits_error(measurement: Measurement) -> float | None:
    nats = _nats_error(measurement)
    return None if nats is None else nats / math.log(2)


def _character_error(measurement: Measurement) -> float | None:
    bits, record = _bits_error(measurement), measurement.record
    return None if bits is None else bits * record["tokens"] / record["characters"]


def _perplexity_error(measurement: Measurement) -> float | None:
    nats, perplexity = _nats_error(measurement), measurement.record.get("perplexity")
    return None if nats is None or perplexity is None else nats * float(perplexity)


def _recorded(place: str) -> Callable[[Measurement], float | None]:
    def error(measurement: Measurement) -> float | None:
        value = at(measurement.record, place)
        return None if value in (None, UNSAID) else float(value)

    return error


def _judged_bits_error(measurement: Measurement) -> float | None:
    samples = measurement.record.get("samples", {})
    if samples.get("standard_error") is None or "characters" not in samples:
        return None
    nats: float = samples["standard_error"] * samples["tokens"] / samples["characters"]
    return nats / math.log(2)


def _bound(name: str, title: str, *parts: Any) -> Metric:
    return Metric(name, title, name, *parts)


BOUNDS = (
    _bound("bits_per_character", "bits per character", _character_error, _per_character),
    _bound("perplexity", "perplexity per token", _perplexity_error, _per_token),
    _bound("bits_per_token", "bits per token", _bits_error, _per_token),
    _bound("nats_per_token", "nats per token", _nats_error, _per_token),
)

ENTROPY = Metric(
    "entropy",
    "unigram entropy (nats)",
    "samples.entropy",
    _recorded("samples.entropy_error"),
    _sampled,
    lower_is_better=False,
)

GENERATED = (
    Metric(
        "generative_perplexity",
        "generative perplexity",
        "samples.perplexity",
        _recorded("samples.perplexity_error"),
        _judged,
    ),
    # Text that a judge finds strange falls into shorter tokens of it, each less unlikely.
    Metric(
        "judged_bits_per_character",
        "bits per character, judged",
        "samples.bits_per_character",
        _judged_bits_error,
        _judged,
    ),
    ENTROPY,
    Metric(
        "mauve",
        "MAUVE",
        "samples.mauve",
        _recorded("samples.mauve_error"),
        _mauve,
        lower_is_better=False,
    ),
)

METRICS: Mapping[str, Metric] = {metric.name: metric for metric in (*BOUNDS, *GENERATED)}


def find_metric(name: str) -> Metric:
    """The metric of a name.

    Raises:
        UsageError: there is none.
    """
    if name not in METRICS:
        near = did_you_mean(name, METRICS)
        raise UsageError(f"unknown metric {name}{near or '; there are ' + ', '.join(METRICS)}")
    return METRICS[name]


def measurements(directory: RunDirectory, run: str) -> list[Measurement]:
    """Everything measured of a run: at its end first, then its evaluations by name."""
    result = read_result(directory)
    found = []
    if "card" in result:
        # The only record whose error is in bits per token.
        error = result["standard_error"]
        nats = {"standard_error": None if error is None else error * math.log(2)}
        found.append(Measurement(run, RESULT, {**result, **nats}, result["card"]))
    kept = {**result.get(EVALUATIONS, {}), **evaluations(directory)}
    return found + [
        Measurement(run, name, record, record.get("card", {}))
        for name, record in sorted(kept.items())
    ]


def latest(found: Iterable[Measurement]) -> Measurement:
    """Of measurements that are alike, the last step's; of those, the one with the least error."""

    def rank(measurement: Measurement) -> tuple[float, float]:
        step, error = measurement.fact("step"), _nats_error(measurement)
        return (0 if step == UNSAID else step, -math.inf if error is None else -error)

    return max(found, key=rank)


def noteworthy(found: Sequence[Measurement], keys: Sequence[str] = NOTEWORTHY) -> list[str]:
    """Lines on what differs without making numbers incomparable: key: value in runs; ..."""
    lines = []
    for key in keys:
        runs: dict[str, list[str]] = {}
        for measurement in found:
            runs.setdefault(shown(measurement.fact(key)), []).append(measurement.run)
        if len(runs) > 1:
            parts = [f"{value} in {', '.join(dict.fromkeys(of))}" for value, of in runs.items()]
            lines.append(f"{key}: {'; '.join(parts)}")
    return lines


def unsaid(metrics: Sequence[Metric], measurement: Measurement) -> list[str]:
    """A line on what cards that are alike do not say, though the metrics depend on it."""
    keys = [key for metric in metrics for key in metric.facts(measurement)]
    silent = dict.fromkeys(key for key in keys if measurement.fact(key) == UNSAID)
    return [f"No card says: {', '.join(silent)}."] if silent else []


def unlike(differences: Mapping[str, tuple[Any, Any]], reference: str) -> str:
    """Differences of two cards: what this one says, and what the reference says."""
    return ", ".join(
        f"{key} {shown(own)} ({reference}: {shown(other)})"
        for key, (own, other) in differences.items()
    )


def shown(value: Any) -> str:
    """A fact in a message: digests are long."""
    text = str(value)
    return f"{text[:8]}…" if len(text) == 64 and " " not in text else text
