"""Cards: every fact that is changed or missing makes two numbers unlike; results of two formats."""

import copy
import json
from itertools import combinations

import pytest

from platform_core.errors import UsageError
from platform_core.record.cards import UNSAID, Card, Measurement, Record, chosen_metrics
from platform_core.record.directory import RunDirectory
from platform_core.record.results import keep_evaluation, measurements, read_result, write_result
from platform_core.registry.loading import find_plugins
from platform_core.testing.records import LN2, bound, judged, of_task, result, write_run

METRICS = find_plugins({}).metrics()


def kinds():
    """A record of each kind, by name."""
    scored = judged(30.0, 3.0)
    scored["samples"]["mauve"] = 0.5
    scored["samples"] |= {"bits_per_character": 1.0, "standard_error": 0.1}
    scored["samples"] |= {"tokens": 10, "characters": 20}
    return {
        "bound": bound(1.0),
        "part of a split": bound(1.0, evaluate__sequences=4),
        "judged": scored,
        "tasks": of_task("piqa", 0.5),
    }


def edited(record, place, value):
    """A copy with another value at a place of its card and figures; None removes what is there."""
    made = copy.deepcopy(record)
    *path, last = place.split(".")
    places = [made["card"], made]
    for part in path:
        places = [inside[part] for inside in places if part in inside]
    places = [inside for inside in places if last in inside]
    assert places
    for inside in places:
        inside[last] = value
        if value is None:
            del inside[last]
    return made


def metrics_of(record):
    """The metrics that a record has, by name."""
    measurement = Measurement("run", "name", Record.read(record))
    shown = chosen_metrics(list(METRICS), METRICS, [measurement])
    return {metric.name: metric for metric in shown if metric.value(measurement) is not None}


def variants(record, metric):
    """The record, and it with each fact that the metric depends on changed, and removed."""
    yield "as it is", record
    for key in metric.keys(Measurement("run", "name", Record.read(record))):
        yield f"{key} changed", edited(record, key, "something else")
        yield f"{key} missing", edited(record, key, None)


CASES = [(kind, name) for kind, record in kinds().items() for name in metrics_of(record)]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_every_two_variants_of_a_record_are_unlike_and_settings_agree(kind, name):
    metric = metrics_of(kinds()[kind])[name]
    found = [
        Measurement(what, "one", Record.read(record))
        for what, record in variants(kinds()[kind], metric)
    ]
    assert len(found) >= 10
    for one, other in combinations(found, 2):
        assert metric.differences(one, other), (one.run, other.run)
        assert metric.differences(other, one).keys() == metric.differences(one, other).keys()
        assert metric.setting(one) != metric.setting(other)
    whole, *others = found
    for other in others:
        key, what = other.run.split()
        assert key in metric.differences(other, whole)
        assert (metric.differences(other, whole)[key][0] == UNSAID) == (what == "missing")


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_the_same_record_twice_is_alike_unless_a_fact_is_missing(kind, name):
    metric = metrics_of(kinds()[kind])[name]
    for what, record in variants(kinds()[kind], metric):
        one, other = (Measurement(run, "one", Record.read(record)) for run in ("a", "b"))
        alike = not what.endswith("missing")
        assert (metric.setting(one) == metric.setting(other)) == alike, what
        assert (not metric.differences(one, other)) == alike, what
        assert not metric.differences(one, one)


@pytest.mark.parametrize(
    ("one", "other"), list(combinations(kinds(), 2)), ids=lambda kind: kind.replace(" ", "-")
)
def test_records_of_unlike_kinds_are_unlike(one, other):
    records = kinds()
    pair = [Measurement(kind, "one", Record.read(records[kind])) for kind in (one, other)]
    for metric in {**metrics_of(records[one]), **metrics_of(records[other])}.values():
        if {one, other} == {"bound", "part of a split"} and metric.name != "bits_per_character":
            continue  # both have the same tokens here
        assert metric.differences(*pair), metric.name
        assert metric.setting(pair[0]) != metric.setting(pair[1])


def test_two_empty_cards_are_not_alike():
    empty = [Measurement(run, "one", Record({}, Card({}))) for run in "ab"]
    for metric in METRICS.values():
        assert set(metric.differences(*empty).values()) == {(UNSAID, UNSAID)}
        assert metric.setting(empty[0]) != metric.setting(empty[1])


def test_a_card_has_what_all_share_once():
    shared = {"step": 1, "parts": {}, "seed": 2, "tokenizer": {}, "units": "nats"}
    made = Card.made("mine", **shared, machine={"device": "cpu"}, facts={"words": 3})
    assert made.facts == {"kind": "mine", **shared, "device": "cpu", "words": 3}
    with pytest.raises(ValueError, match="cannot be called device, seed"):
        Card.made("mine", **shared, machine={"device": "cpu"}, facts={"seed": 3, "device": "x"})


# Formats of result.json


def test_results_are_written_in_nats_and_old_ones_converted(tmp_path):
    old = RunDirectory(write_run(tmp_path / "old", result(1.0, 0.03)))
    assert "format" not in json.loads(old.result.read_text())
    assert read_result(old)["standard_error"] == pytest.approx(0.03)
    new = RunDirectory(write_run(tmp_path / "new"))
    write_result(new, bound(1.0, 0.03))
    assert json.loads(new.result.read_text())["format"] == 2
    assert read_result(new)["standard_error"] == 0.03
    (ended,) = measurements(new, "new")
    assert METRICS["bits_per_token"].error(ended) == pytest.approx(0.03 / LN2)


def test_a_measurement_of_an_old_run_leaves_its_result_in_the_new_format(tmp_path):
    directory = RunDirectory(write_run(tmp_path / "old", result(1.0, 0.03)))
    for name in ("one", "two"):
        keep_evaluation(directory, name, Record.read(bound(1.0)))
    written = json.loads(directory.result.read_text())
    assert (written["format"], set(written["evaluations"])) == (2, {"one", "two"})
    assert written["standard_error"] == pytest.approx(0.03)


def test_a_result_of_a_later_format_is_refused_in_one_line(tmp_path):
    directory = RunDirectory(write_run(tmp_path / "late", {**result(1.0), "format": 3}))
    with pytest.raises(
        UsageError, match=r"has format 3, and this version reads 2; .*platform eval"
    ):
        read_result(directory)
