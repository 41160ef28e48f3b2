"""Laws of metrics, and the check that a record has every fact that its metrics depend on.

A metric is tested with an empty card, because its evaluation may need a trained network. The test
of an evaluation passes a record that the evaluation made to `require_whole`.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from platform_core.record.cards import UNSAID, Card, Measurement, Metric, Record, measured_metrics
from platform_core.registry.parts import Plugins
from platform_core.testing.law import Figures, require

NAME = re.compile(r"[a-z][a-z0-9_.]*")


def nothing(run: str) -> Measurement:
    """A measurement of a run, without figures and with an empty card."""
    return Measurement(run, "nothing", Record({}, Card({})))


def can_be_asked_for(metric: Metric) -> Figures:
    """A metric's name has only small letters, digits, dots, underscores; its title is one line."""
    require(bool(NAME.fullmatch(metric.name)), f"its name is {metric.name!r}")
    require(bool(metric.title.strip()) and "\n" not in metric.title, f"title {metric.title!r}")
    require(bool(metric.place), "it has no place in the figures")
    return metric.title


def is_absent_from_an_empty_record(metric: Metric) -> Figures:
    """For a record without figures, a metric's value and error are None, and nothing is raised."""
    value, error = metric.value(nothing("a")), metric.error(nothing("a"))
    require(value is None, f"its value is {value}")
    require(error is None, f"its error is {error}")
    return None


def depends_on_facts(metric: Metric) -> Figures:
    """A metric depends on at least one fact, and two empty cards differ in each of these facts."""
    keys = metric.keys(nothing("a"))
    require(bool(keys), "it depends on no fact, so that any two values would be comparable")
    found = metric.differences(nothing("a"), nothing("b"))
    require(set(found) == set(keys), f"{set(keys) ^ set(found)} are not told apart")
    return ", ".join(keys)


def family_has_a_table(metric: Metric) -> Figures:
    """A metric's family has a name and a one-line title; metrics beside it are of its family."""
    family = metric.family
    title = family.title(nothing("a"))
    require(bool(family.name) and bool(title) and "\n" not in title, f"{family.name!r}: {title!r}")
    require(isinstance(family.remarks(nothing("a")), list), "its remarks are not a list")
    strangers = [other.name for other in metric.beside if other.family != family]
    require(not strangers, f"{', '.join(strangers)} beside it are of another family")
    return f"{family.name}: {title}"


METRIC_LAWS: Mapping[str, Callable[[Metric], Figures]] = {
    law.__name__.replace("_", "-"): law
    for law in (
        can_be_asked_for,
        is_absent_from_an_empty_record,
        depends_on_facts,
        family_has_a_table,
    )
}
"""The laws of metrics by their ids."""


@dataclass(frozen=True)
class MetricCase:
    """One law to be tested on one metric."""

    metric: Metric
    law: str

    def __str__(self) -> str:
        return f"metric:{self.metric.name}-{self.law}"

    def test(self) -> Figures:
        """Test the law on the metric.

        Raises:
            LawBroken: the metric breaks the law.
        """
        return METRIC_LAWS[self.law](self.metric)


def metric_cases(plugins: Plugins, plugin: str | None = None) -> list[MetricCase]:
    """Every law on every metric of a plugin, given by name or distribution; None: all plugins."""
    return [
        MetricCase(metric, law)
        for found in plugins.plugins
        if plugin is None or found.goes_by(plugin)
        for metric in found.metrics
        for law in METRIC_LAWS
    ]


def require_whole(record: Record, metrics: Iterable[Metric]) -> list[str]:
    """Require a record's metrics to be finite and to have all their facts; return their names.

    Args:
        record: a record as an evaluation made it, or as it was read from a file.
        metrics: metrics that the record may have, such as those of `find_plugins().metrics()`.

    Raises:
        LawBroken: the record has none of the metrics; a value is not finite; an error is negative;
            or the card lacks a fact that a value depends on.
    """
    measurement = Measurement("run", "record", record)
    found = []
    for metric in measured_metrics(metrics, [measurement]).values():
        value, error = metric.value(measurement), metric.error(measurement)
        if value is None:
            continue
        require(math.isfinite(value), f"{metric.name} is {value}")
        require(error is None or error >= 0, f"the error of {metric.name} is {error}")
        lacking = [key for key, fact in metric.facts(measurement).items() if fact == UNSAID]
        require(not lacking, f"the card lacks {', '.join(lacking)}, needed by {metric.name}")
        found.append(metric.name)
    require(bool(found), "the record has none of these metrics")
    return found
