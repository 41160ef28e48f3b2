"""A damaged file of a record is said in one line that names it, and never costs a result."""

import json
from pathlib import Path

import pytest

from platform_core.errors import UsageError
from platform_core.record import metrics
from platform_core.record.cards import Card, Record
from platform_core.record.directory import RunDirectory
from platform_core.record.files import ReadError
from platform_core.record.results import (
    evaluations,
    keep_evaluation,
    measurements,
    read_result,
    write_result,
)
from platform_core.record.sweep import State, SweepDirectory
from platform_core.record.tracker import identities, keep_identities, when_began

DAMAGED = [b"", b"null", b"[]", b"1", b'"x"', b"{", b"\xff\xfe\x00", b"[" * 5000, b'{"a": 1}{}']


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory(tmp_path / "r")
    run.create()
    return run


def record(value: float) -> Record:
    return Record({"bits": value}, Card({"kind": "bound"}))


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_evaluation_costs_no_result(
    run: RunDirectory, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    keep_evaluation(run, "good", record(1.0))
    (run.evaluations / "bad.json").write_bytes(content)
    write_result(run, {"steps": 3})
    assert read_result(run) == {"steps": 3, "evaluations": {"good": record(1.0).to_dict()}}
    assert [measured.name for measured in measurements(run, "r")] == ["good"]
    assert str(run.evaluations / "bad.json") in capsys.readouterr().err


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_result_costs_no_measurement(
    run: RunDirectory, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    run.result.write_bytes(content)
    with pytest.raises(ReadError, match=r"result\.json is damaged"):
        read_result(run)
    keep_evaluation(run, "good", record(1.0))
    assert set(evaluations(run)) == {"good"}
    assert "is left as it is" in capsys.readouterr().err
    assert run.result.read_bytes() == content
    write_result(run, {"steps": 3})
    assert read_result(run)["steps"] == 3


@pytest.mark.parametrize(
    "content",
    [*DAMAGED, b"{}", b'{"began": "x", "trackers": [1]}', b'{"trackers": {"aim": [1]}}'],
)
def test_damaged_tracking_begins_anew(run: RunDirectory, content: bytes) -> None:
    run.tracking.write_bytes(content)
    assert identities(run) == {}
    assert when_began(run) is None
    keep_identities(run, {"aim": "abc"})
    assert identities(run) == {"aim": "abc"}


@pytest.mark.parametrize(
    "line",
    [
        *(content.replace(b"\n", b"") or b" " for content in DAMAGED),
        b'{"step": "x", "subset": "train", "time": 1}',
        b'{"step": 1, "subset": "train", "time": null}',
        b'{"step": 1, "subset": [], "time": 1}',
    ],
)
def test_a_damaged_line_of_metrics_is_named(run: RunDirectory, line: bytes) -> None:
    whole = json.dumps({"step": 1, "subset": "train", "time": 1.0}).encode()
    run.metrics.write_bytes(b"\n".join([whole, line, whole, b""]))
    for read in (metrics.read, lambda path: metrics.MetricsLog.resume(path, 9)):
        with pytest.raises(UsageError, match=r"metrics\.jsonl:2 is no record"):
            read(run.metrics)


def test_a_resumed_record_has_no_second_end(run: RunDirectory) -> None:
    log = metrics.MetricsLog(run.metrics)
    for subset in ("train", "final"):
        log.log({"loss": 1.0}, step=4, subset=subset)
    log.close()
    metrics.MetricsLog.resume(run.metrics, 4).close()
    assert [line["subset"] for line in metrics.read(run.metrics)] == ["train"]


@pytest.mark.parametrize("content", [*DAMAGED, b'{"names": 3}', b'{"names": [1]}'])
def test_damaged_labels_are_named(run: RunDirectory, content: bytes) -> None:
    run.labels.write_bytes(content)
    with pytest.raises(ReadError, match=r"labels\.json is damaged"):
        run.label_names()


@pytest.mark.parametrize("content", [*DAMAGED, b'{"x": 1}', b'{"evaluations": [1]}'])
def test_the_damaged_state_of_a_trial_is_read_anew(tmp_path: Path, content: bytes) -> None:
    sweep = SweepDirectory(tmp_path)
    sweep.state_file("a").parent.mkdir()
    sweep.state_file("a").write_bytes(content)
    assert sweep.state("a") == State()
    sweep.index.write_bytes(content)
    with pytest.raises(UsageError, match=r"trials\.json"):
        sweep.names()
