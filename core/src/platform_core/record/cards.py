"""Records, cards and metrics: what was measured, how, and which numbers may be compared.

    Record = figures + Card              what `platform run` and `platform eval` write
    Metric = a figure of records, and the facts of a card that its value depends on

    alike(a, b)  iff  both cards hold each of these facts, with the same value

A fact is an entry of a card (`evaluate.protocol`) or, if the card has none, a figure beside it
(`tokens`). A fact that a card lacks is a difference, even if the other card lacks it too. Used by
`platform compare` and `platform report`; imports no torch.
"""

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from platform_core.errors import UsageError, did_you_mean
from platform_core.record.progress import command

RESULT = "result"
"""The name of the measurement at the end of a run; evaluations have names of their own."""

UNSAID = "not said"
"""The value that stands for a fact that a card lacks."""

MOST_NAMED = 5
"""Largest number of runs that one line names."""

Facts = dict[str, Any]
Differences = dict[str, tuple[Any, Any]]
Setting = tuple[Hashable, ...]


@dataclass(frozen=True)
class Card:
    """The facts on how the figures of a record were measured.

    Args:
        facts: facts by name, nested, as they are on disk; a card read from disk may lack any fact.
    """

    facts: Mapping[str, Any]

    @classmethod
    def made(
        cls,
        kind: str,
        *,
        step: int,
        parts: Mapping[str, str],
        seed: int,
        tokenizer: Mapping[str, Any],
        units: str,
        machine: Mapping[str, Any],
        facts: Mapping[str, Any],
    ) -> "Card":
        """Makes a card, with the facts that all cards share.

        Args:
            kind: what was measured, such as "bound" or "judged".
            step: number of updates of the weights that were measured.
            parts: the name of the part in each role.
            seed: seed that all random draws are derived from.
            tokenizer: the kind, size and digest of the tokenizer.
            units: a sentence on the units of the figures.
            machine: versions, device and precision.
            facts: other facts that figures of this kind depend on.

        Raises:
            ValueError: `facts` has a name that all cards use already.
        """
        shared = {"parts": parts, "seed": seed, "tokenizer": tokenizer, "units": units, **machine}
        taken = {"kind", "step", *shared} & facts.keys()
        if taken:
            raise ValueError(f"facts of a card cannot be called {', '.join(sorted(taken))}")
        return cls({"kind": kind, "step": step, **facts, **shared})


@dataclass(frozen=True)
class Record:
    """Figures that were measured together, and the card that says how they were measured.

    Args:
        figures: numbers by name, some of them nested; errors of losses in nats per token.
        card: facts on how the figures were measured.
    """

    figures: Mapping[str, Any]
    card: Card

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> "Record":
        """The record of a value of `to_dict`; its card is empty if the value has none."""
        figures = {name: value for name, value in values.items() if name != "card"}
        return cls(figures, Card(values.get("card", {})))

    def to_dict(self) -> dict[str, Any]:
        """The figures with the card beside them, as plain values for a file."""
        return {**self.figures, "card": self.card.facts}


@dataclass(frozen=True)
class Measurement:
    """A record of a run, with the names of the run and of the measurement.

    Args:
        run: the run, as the user named it.
        name: `RESULT`, or the name of the evaluation; unique within a run.
        record: the figures and their card.
    """

    run: str
    name: str
    record: Record

    def fact(self, key: str) -> Any:
        """The fact at a place of the card, else the figure of that name, else `UNSAID`."""
        value = at(self.record.card.facts, key)
        return at(self.record.figures, key) if value == UNSAID else value

    def figure(self, place: str) -> float | None:
        """The number at a place of the figures; None where there is none."""
        value = at(self.record.figures, place)
        return None if value in (None, UNSAID) or isinstance(value, Mapping) else float(value)

    @property
    def exact(self) -> bool:
        """Whether the loss is the negative log-likelihood itself, not a bound on it."""
        return bool(self.fact("noise_levels_per_sequence") == 0)


NOTED = (
    "seed",
    "step",
    "noise_levels_per_sequence",
    "data.length",
    "mix",
    "tokenizer.kind",
    "device",
    "precision",
    "packages.torch",
    "packages.dlm-platform-core",
)
"""Facts of any measurement whose differences are reported, though numbers stay comparable."""


def no_remarks(measurement: Measurement) -> list[str]:
    """The remarks of a family without remarks: no lines below a table."""
    return []


@dataclass(frozen=True)
class Family:
    """Metrics that one evaluation measures, and that therefore stand in the same tables.

    Args:
        name: a word, with which the names of the family's tables begin.
        title: gives the title of a table, from one of the measurements in it.
        words: options with which `platform eval RUN` measures the family, such as "--judge MODEL".
        noted: facts whose differences are reported below a table.
        remarks: gives other lines below a table, from one of the measurements in it.
        by_sampler: whether each way of sampling is a row of its own, with its cost.
    """

    name: str
    title: Callable[[Measurement], str]
    words: str = ""
    noted: tuple[str, ...] = NOTED
    remarks: Callable[[Measurement], list[str]] = no_remarks
    by_sampler: bool = False


@dataclass(frozen=True)
class Metric:
    """A number that tables show.

    Args:
        name: what `--metric` calls it.
        title: the head of its column.
        place: place of the number in the figures of a record, such as "samples.entropy".
        error: gives the standard error in the unit of the metric; None if it is not known.
        keys: gives the facts that must be equal for two numbers to stand in one column.
        family: the family of metrics that this metric belongs to.
        lower_is_better: False where a higher number is the better one.
        usual: whether tables show it without being asked.
        beside: metrics that a table shows wherever it shows this one.
        reference: place of the same number of real text, which plots show; empty where none is.
        members: for a metric that stands for a group of metrics, whose names are known only
            after measuring: gives the members that a measurement has.
    """

    name: str
    title: str
    place: str
    error: Callable[[Measurement], float | None]
    keys: Callable[[Measurement], tuple[str, ...]]
    family: Family
    lower_is_better: bool = True
    usual: bool = True
    beside: tuple["Metric", ...] = ()
    reference: str = ""
    members: Callable[[Measurement], Iterable["Metric"]] | None = None

    def value(self, measurement: Measurement) -> float | None:
        """The number; None where it was not measured or is not finite."""
        return measurement.figure(self.place)

    def facts(self, measurement: Measurement) -> Facts:
        """The facts that the number depends on; `UNSAID` for those that the card lacks."""
        return {key: measurement.fact(key) for key in self.keys(measurement)}

    def setting(self, measurement: Measurement) -> Setting:
        """A key that two measurements share exactly if `differences` finds no difference.

        A measurement whose card lacks one of the facts shares its setting with no other.
        """
        facts = sorted(self.facts(measurement).items())
        alone = any(value == UNSAID for _, value in facts)
        own = (measurement.run, measurement.name) if alone else ()
        return (*((key, _hashable(value)) for key, value in facts), *own)

    def differences(self, measurement: Measurement, other: Measurement) -> Differences:
        """Facts that differ, as (this card's, the other's); a fact missing from one card differs.

        The facts are those that either of the two numbers depends on. A fact that both cards lack
        differs too, because nobody can tell whether it was the same. If two digests differ, the
        differing options behind them are named instead, where there are any.
        """
        if measurement == other:
            return {}
        found: dict[str, None] = {}
        for key in dict.fromkeys((*self.keys(measurement), *self.keys(other))):
            pair = measurement.fact(key), other.fact(key)
            if UNSAID in pair:
                found[key] = None
            elif _unequal(key, measurement, other):
                found |= dict.fromkeys(_behind(key, measurement, other))
        return {key: (measurement.fact(key), other.fact(key)) for key in found}

    def command(self, run: str) -> str:
        """The command that measures this metric of a run."""
        return " ".join(filter(None, [command("eval", run), self.family.words]))


def at(values: Any, place: str) -> Any:
    """The value that nested mappings hold at a place `a.b.c`; `UNSAID` where there is none."""
    for part in place.split("."):
        values = values.get(part, UNSAID) if isinstance(values, Mapping) else UNSAID
    return values


def _hashable(value: Any) -> Hashable:
    if isinstance(value, Mapping):
        return tuple((key, _hashable(item)) for key, item in sorted(value.items()))
    return tuple(map(_hashable, value)) if isinstance(value, list | tuple) else value


def _unequal(key: str, measurement: Measurement, other: Measurement) -> bool:
    return _hashable(measurement.fact(key)) != _hashable(other.fact(key))


def _behind(key: str, measurement: Measurement, other: Measurement) -> list[str]:
    """The facts that two digests at a place differ for; the place itself where none is known.

    A text is the same or another whatever its path is, where both cards say its digest.
    """
    found: list[str] = []
    for fact in BEHIND.get(key, ()):
        both = UNSAID not in (measurement.fact("text"), other.fact("text"))
        if key == "fingerprint" and fact in (SOURCE if both else ("text",)):
            continue
        if _unequal(fact, measurement, other):
            found += _behind(fact, measurement, other)
    return found or [key]


SOURCE = ("data.corpus", "data.path", "data.column")
"""The options that say which text was read."""

CUT = ("tokenizer.digest", "data.length", "data.packing", "data.marks", "data.document_masks")
"""The options that say how a text is cut into sequences of tokens."""

BEHIND: Mapping[str, tuple[str, ...]] = {
    "text": SOURCE,
    "fingerprint": ("text", *SOURCE, *CUT, "label"),
}
"""Digest -> the options that it depends on, which messages name in place of the digest."""


def recorded(place: str) -> Callable[[Measurement], float | None]:
    """A function that reads a standard error at a place of a record's figures."""
    return lambda measurement: measurement.figure(place)


def nats_error(measurement: Measurement) -> float | None:
    """The standard error of a loss in nats per token; one sequence has no spread, so None."""
    return None if measurement.fact("sequences") == 1 else measurement.figure("standard_error")


def find_metric(name: str, metrics: Mapping[str, Metric]) -> Metric:
    """The metric of a name.

    Raises:
        UsageError: no metric has that name.
    """
    if name not in metrics:
        near = did_you_mean(name, metrics)
        raise UsageError(f"unknown metric {name}{near or '; there are ' + ', '.join(metrics)}")
    return metrics[name]


def measured_metrics(metrics: Iterable[Metric], found: Iterable[Measurement]) -> dict[str, Metric]:
    """Metrics by name; a metric that stands for a group is replaced by its measured members.

    If no member was measured, the metric of the group stays.
    """
    measurements, named = list(found), dict[str, Metric]()
    for metric in metrics:
        members = metric.members or (lambda measurement: ())
        several = {m.name: m for measurement in measurements for m in members(measurement)}
        named |= several or {metric.name: metric}
    return named


def chosen_metrics(
    names: Sequence[str], metrics: Mapping[str, Metric], found: Sequence[Measurement]
) -> list[Metric]:
    """The metrics of the given names, in this order; the usual metrics if no name is given.

    Args:
        names: names of metrics; the name of a group asks for all its members.
        metrics: all installed metrics, by name.
        found: the measurements whose metrics are shown.

    Raises:
        UsageError: one of the names is no metric's.
    """
    every = measured_metrics(metrics.values(), found)
    if not names:
        return [metric for metric in every.values() if metric.usual]
    asked = [find_metric(name, {**metrics, **every}) for name in names]
    return list(measured_metrics(asked, found).values())


def families(metrics: Iterable[Metric]) -> dict[Family, list[Metric]]:
    """Metrics by their family; each list ends with the metrics that belong beside others of it."""
    found: dict[Family, list[Metric]] = {}
    for metric in metrics:
        found.setdefault(metric.family, []).append(metric)
    for family in found.values():
        beside = [other for metric in family for other in metric.beside]
        family += [other for other in dict.fromkeys(beside) if other not in family]
    return found


def leading(metrics: Iterable[Metric], measurement: Measurement) -> Metric | None:
    """The first of some metrics that a measurement has; None where it has none."""
    return next((m for m in metrics if m.value(measurement) is not None), None)


def latest(found: Iterable[Measurement]) -> Measurement:
    """The measurement of the last step; of several, the one with the least standard error."""

    def rank(measurement: Measurement) -> tuple[float, float]:
        step, error = measurement.fact("step"), nats_error(measurement)
        return (0 if step == UNSAID else step, -math.inf if error is None else -error)

    return max(found, key=rank)


def noteworthy(found: Sequence[Measurement], keys: Sequence[str] = NOTED) -> list[str]:
    """Lines on facts that differ although numbers stay comparable, as `key: value in runs; ...`."""
    lines = []
    for key in keys:
        runs: dict[str, list[str]] = {}
        for measurement in found:
            runs.setdefault(shown(measurement.fact(key)), []).append(measurement.run)
        if len(runs) > 1:
            parts = [f"{value} in {', '.join(dict.fromkeys(of))}" for value, of in runs.items()]
            lines.append(f"{key}: {'; '.join(parts)}")
    return lines


def silent(metric: Metric, found: Iterable[Measurement], folder: str = "") -> list[str]:
    """Lines on cards that lack facts which a metric depends on, and how to measure again.

    Args:
        metric: the metric that is shown.
        found: the measurements whose metric is shown.
        folder: what stands before the name of a run in a command, such as "sweeps/noise/trials/".
    """
    runs: dict[tuple[str, ...], list[str]] = {}
    for measurement in found:
        facts = metric.facts(measurement)
        lacking = tuple(key for key, value in facts.items() if value == UNSAID)
        if lacking and measurement.run not in runs.setdefault(lacking, []):
            runs[lacking].append(measurement.run)
    lines = []
    for lacking, of in runs.items():
        more = f" and {len(of) - MOST_NAMED} more" if len(of) > MOST_NAMED else ""
        cards = (
            f"The card of {of[0]} does"
            if len(of) == 1
            else f"The cards of {', '.join(of[:MOST_NAMED])}{more} do"
        )
        command = metric.command(f"{folder}{of[0] if len(of) == 1 else 'RUN'}")
        lines.append(f"{cards} not say {', '.join(lacking)}; measure again with `{command}`.")
    return lines


def unlike(differences: Mapping[str, tuple[Any, Any]], reference: str) -> str:
    """Differences of two cards as text: the value in this card, and in the reference's."""
    return ", ".join(
        f"{key} {shown(own)} ({reference}: {shown(other)})"
        for key, (own, other) in differences.items()
    )


def shown(value: Any) -> str:
    """The text of a fact in messages; digests are shortened, because they are long."""
    text = str(value)
    return f"{text[:8]}…" if len(text) == 64 and " " not in text else text
