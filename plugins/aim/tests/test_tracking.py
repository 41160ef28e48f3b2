"""The record of a run and Aim's tracker."""

import json
import math
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from platform_aim.bookmarks import BOOKMARKS
from platform_aim.queries import check
from platform_aim.repository import index, open_repository
from platform_aim.tracker import AimTracker
from platform_core.errors import UsageError
from platform_core.evaluation import figures
from platform_core.record.directory import RunDirectory
from platform_core.record.metrics import MetricsLog, read
from platform_core.record.tracker import (
    About,
    Display,
    Guarded,
    NoTracker,
    Several,
)

WARNING = "platform: warning: Aim tracking is off: "


def without_times(path: Path) -> list[dict[str, Any]]:
    return [{key: record[key] for key in record if key != "time"} for record in read(path)]


def write(log: MetricsLog, steps: Sequence[int]) -> None:
    for step in steps:
        log.log({"loss": 1 / (step + 1)}, step=step, subset="train")
        if step % 4 == 0:
            log.log({"bound": float(step), "tokens": step}, step=step, subset="validation")


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def test_a_record_is_readable_while_the_run_goes_on(record: Path) -> None:
    log = MetricsLog(record)
    log.log({"loss": 0.1, "tokens": 7}, step=3, subset="train")
    [entry] = read(record)
    log.close()
    assert 0 <= entry.pop("time") < 60
    assert entry == {"step": 3, "subset": "train", "loss": 0.1, "tokens": 7}


def test_numbers_that_json_lacks_survive_as_valid_json(record: Path) -> None:
    log = MetricsLog(record)
    log.log({"a": math.nan, "b": math.inf, "c": -math.inf}, step=0, subset="train")
    log.close()

    def fail(constant: str) -> None:
        pytest.fail(f"{constant} is not JSON")

    json.loads(record.read_text(), parse_constant=fail)
    [entry] = read(record)
    assert math.isnan(entry["a"])
    assert entry["b"] == math.inf
    assert entry["c"] == -math.inf


def test_a_torn_last_line_is_not_read(record: Path) -> None:
    log = MetricsLog(record)
    write(log, [1, 2])
    log.close()
    whole = read(record)
    with record.open("a") as stream:
        stream.write('{"step": 3, "subset": "tra')
    assert read(record) == whole


def test_a_resumed_record_equals_the_uninterrupted_one(tmp_path: Path, record: Path) -> None:
    straight = tmp_path / "straight.jsonl"
    log = MetricsLog(straight)
    write(log, range(10))
    log.close()

    log = MetricsLog(record)
    write(log, range(8))
    log.close()
    with record.open("a") as stream:
        stream.write('{"step": 8, "sub')
    log = MetricsLog.resume(record, step=4)
    assert [entry["step"] for entry in read(record)] == [0, 0, 1, 2, 3, 4, 4]
    write(log, range(5, 10))
    log.close()

    assert without_times(record) == without_times(straight)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.jsonl", "straight.jsonl"]


def test_the_clock_of_a_resumed_run_goes_on(record: Path) -> None:
    log = MetricsLog(record, elapsed=1000.0)
    write(log, [1])
    log.close()
    log = MetricsLog.resume(record, step=1)
    write(log, [2])
    log.close()
    first, second = (entry["time"] for entry in read(record))
    assert 1000 <= first <= second


def test_a_run_without_a_record_is_resumed_with_an_empty_one(record: Path) -> None:
    MetricsLog.resume(record, step=4).close()
    assert read(record) == []


@pytest.mark.parametrize("line", ["not JSON", "[1]", '{"step": 1}'])
def test_a_damaged_line_is_named(record: Path, line: str) -> None:
    log = MetricsLog(record)
    write(log, [1])
    log.close()
    with record.open("a") as stream:
        stream.write(line + "\n")
    with pytest.raises(UsageError, match="metrics.jsonl:2 is no record of metrics"):
        read(record)


def make_tracker(
    repository: Path, *, name: str = "tiny", run_hash: str | None = None, sweep: str | None = None
) -> Guarded:
    about = About(
        name=name,
        parts={"process": "duo", "backbone": "dit"},
        hyperparameters={
            "process": {"gamma_min": -3.5},
            "train": {"learning_rate": 2e-3, "betas": (0.9, 0.99), "compile": False},
            "data": {"path": Path("texts"), "length": None},
            "seed": 2**64,
        },
        versions={"torch": "2.13.0"},
        sweep=sweep,
    )
    return Guarded.of(AimTracker, RunDirectory(repository.parent / name), about, run_hash)


def query(repository: Path, kind: str, expression: str) -> list[Any]:
    from aim.sdk.types import QueryReportMode

    repo = open_repository(repository)
    found = getattr(repo, f"query_{kind}")(expression, report_mode=QueryReportMode.DISABLED)
    if kind == "runs":
        return [match.run for match in found.iter_runs()]
    return list(found)


def points(metric: Any) -> dict[int, float]:
    steps, (values, _, _) = metric.data.items_list()
    return dict(zip(steps, values, strict=True))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all tests: making one takes Aim two seconds."""
    folder = tmp_path_factory.mktemp("runs") / ".aim"
    open_repository(folder)
    return folder


def test_a_closed_run_is_found_by_its_parts_and_options(repository: Path) -> None:
    tracker = make_tracker(repository, name="found")
    tracker.close()
    wanted = 'run.process.name == "duo" and run.train.learning_rate < 1e-2 and run.name == "found"'
    [run] = query(repository, "runs", wanted)
    assert run.hash == tracker.identity
    assert run.experiment == "duo"
    assert not run.active
    assert run["process"] == {"gamma_min": -3.5, "name": "duo"}
    assert run["backbone"] == {"name": "dit"}
    assert run["train"] == {"learning_rate": 2e-3, "betas": [0.9, 0.99], "compile": False}
    assert run["data"] == {"path": "texts", "length": None}
    assert run["seed"] == str(2**64)
    assert run["versions"] == {"torch": "2.13.0"}
    assert query(repository, "runs", 'run.process.name == "mdlm"') == []


def test_metrics_have_the_context_of_their_subset(repository: Path) -> None:
    tracker = make_tracker(repository)
    for step in range(3):
        tracker.log({"loss": step, "norm": math.nan}, step=step, subset="train")
    tracker.log({"loss": 9.0}, step=2, subset="validation")
    tracker.close()
    mine = f'run.hash == "{tracker.identity}" and metric.name == "loss"'
    [train] = query(repository, "metrics", mine + ' and metric.context.subset == "train"')
    [validation] = query(repository, "metrics", mine + ' and metric.context.subset == "validation"')
    assert points(train) == {0: 0.0, 1: 1.0, 2: 2.0}
    assert points(validation) == {2: 9.0}


def test_samples_are_kept_as_texts_of_their_step(repository: Path) -> None:
    tracker = make_tracker(repository)
    tracker.text("samples", [], step=1)
    tracker.text("samples", ["My fellow", "citizens\n"], step=5)
    tracker.close()
    [texts] = query(repository, "texts", f'run.hash == "{tracker.identity}"')
    steps, (values, _, _) = texts.data.items_list()
    assert list(steps) == [5]
    assert [text.data for text in values[0]] == ["My fellow", "citizens\n"]


def test_a_resumed_run_goes_on_without_duplicates(repository: Path) -> None:
    first = make_tracker(repository)
    for step in range(6):
        first.log({"loss": float(step)}, step=step, subset="train")
    first.close()
    second = make_tracker(repository, run_hash=first.identity)
    for step in range(4, 9):
        second.log({"loss": 10.0 * step}, step=step, subset="train")
    second.close()
    assert second.identity == first.identity
    [metric] = query(repository, "metrics", f'run.hash == "{first.identity}"')
    assert points(metric) == {0: 0, 1: 1, 2: 2, 3: 3, 4: 40, 5: 50, 6: 60, 7: 70, 8: 80}


def test_a_run_that_the_repository_has_no_more_is_made_again(repository: Path) -> None:
    tracker = make_tracker(repository, run_hash="0123456789abcdef01234567")
    tracker.close()
    assert tracker.identity == "0123456789abcdef01234567"
    [run] = query(repository, "runs", f'run.hash == "{tracker.identity}"')
    assert not run.active


def test_a_run_that_a_process_writes_to_is_left_to_it(
    repository: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform_aim.repository.WRITER_SECONDS", 0.0)
    first = make_tracker(repository)
    second = make_tracker(repository, run_hash=first.identity)
    check_one_warning(capsys, "BlockingIOError")
    first.log({"loss": 1.0}, step=1, subset="train")
    first.close()
    second.close()
    [metric] = query(repository, "metrics", f'run.hash == "{first.identity}"')
    assert points(metric) == {1: 1.0}


def test_a_trial_is_found_by_its_sweep(repository: Path) -> None:
    tracker = make_tracker(repository, sweep="noise")
    tracker.close()
    [run] = query(repository, "runs", 'run.sweep == "noise" and run.process.name == "duo"')
    assert run.hash == tracker.identity
    assert run.experiment == "noise"
    assert run.tags == ["noise"]


def test_a_figure_is_an_image_and_the_bound_by_noise_level_also_curves(
    repository: Path, tmp_path: Path
) -> None:
    levels = [
        {"start": 0.0, "end": 0.1, "nats_per_token": 2.5, "standard_error": None},
        {"start": 0.9, "end": 1.0, "nats_per_token": 1.5, "standard_error": 0.1},
    ]
    record = {"kind": "levels", "subset": "validation", "protocol": "exact"}
    figures.keep({**record, "nats_per_token": 2.0, "levels": levels}, tmp_path / "levels.json")
    tracker = make_tracker(repository)
    tracker.figure(tmp_path / "levels.json", step=7)
    tracker.close()
    [images] = query(repository, "images", f'run.hash == "{tracker.identity}"')
    steps, ([image], _, _) = images.data.items_list()
    assert (images.name, list(steps)) == ("levels", [7])
    assert image.format.lower() == "png"
    curves = query(repository, "metrics", f'run.hash == "{tracker.identity}"')
    found = {curve.context["level"]: points(curve) for curve in curves}
    assert found == {"0.0-0.1": {7: 2.5}, "0.9-1.0": {7: 1.5}}


def test_the_end_of_a_run_is_no_point_of_the_curves_by_noise_level(
    repository: Path, tmp_path: Path
) -> None:
    level = {"start": 0.0, "end": 1.0, "standard_error": None}
    record = {"kind": "levels", "subset": "validation", "protocol": "exact", "nats_per_token": 2.0}
    looks = {"levels-step-0000005": 2.5, "levels-step-0000009": 2.0, "levels-final": 1.5}
    tracker = make_tracker(repository)
    for name, nats in looks.items():
        path = tmp_path / f"{name}.json"
        figures.keep({**record, "levels": [{**level, "nats_per_token": nats}]}, path)
        # The last look and the end are of the same step.
        tracker.figure(path, step=5 if nats == 2.5 else 9)
    tracker.close()
    mine = f'run.hash == "{tracker.identity}" and metric.name == "level_nats_per_token"'
    found = {curve.context["subset"]: points(curve) for curve in query(repository, "metrics", mine)}
    assert found == {"validation": {5: 2.5, 9: 2.0}, "final": {9: 1.5}}
    [shown] = [
        mark.state["select"]["query"] for mark in BOOKMARKS if mark.name == "Bound by noise level"
    ]
    check(shown)
    [curve] = query(repository, "metrics", f"({shown}) and ({mine})")
    assert points(curve) == found["validation"]


def python(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT + code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


SCRIPT = """
import os, signal, sys
from pathlib import Path
from platform_aim.tracker import AimTracker
from platform_core.record.directory import RunDirectory
from platform_core.record.tracker import About, Guarded
directory = RunDirectory(Path(sys.argv[1]).parent / "x")
tracker = Guarded.of(AimTracker, directory, About("x", {"process": "duo"}, {}, {}))
tracker.log({"loss": 1.0}, step=1, subset="train")
"""


@pytest.mark.slow
def test_a_killed_run_is_resumed(repository: Path) -> None:
    process = python("print(tracker.identity, flush=True); signal.pause()", str(repository))
    assert process.stdout is not None
    run_hash = process.stdout.readline().strip()
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    tracker = make_tracker(repository, run_hash=run_hash)
    tracker.log({"loss": 2.0}, step=2, subset="train")
    tracker.close()
    assert tracker.identity == run_hash
    [metric] = query(repository, "metrics", f'run.hash == "{run_hash}"')
    assert points(metric) == {1: 1.0, 2: 2.0}
    assert list((repository / "locks").glob(f"{run_hash}*")) == []


@pytest.mark.slow
def test_two_processes_make_one_repository_at_once(tmp_path: Path) -> None:
    repository = tmp_path / ".aim"
    processes = [
        python("tracker.close(); print(tracker.identity)", str(repository)) for _ in range(2)
    ]
    outcomes = [process.communicate() for process in processes]
    assert [error for _, error in outcomes] == ["", ""]
    hashes = {output.strip() for output, _ in outcomes}
    assert {run.hash for run in query(repository, "runs", 'run.process.name == "duo"')} == hashes
    assert len(hashes) == 2
    assert [path.name for path in tmp_path.iterdir()] == [".aim"]


@pytest.mark.slow
def test_aim_leaves_the_terminal_alone_even_where_warnings_are_errors(repository: Path) -> None:
    code = "print(sys.stdout is sys.__stdout__, __import__('logging').root.handlers)"
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT + code + "\ntracker.close()", str(repository)],
        capture_output=True,
        text=True,
    )
    assert process.stderr == ""
    assert process.stdout == "True []\n"


@pytest.mark.slow
def test_a_repository_that_vanishes_does_not_keep_the_process_from_ending(tmp_path: Path) -> None:
    code = """
import shutil
shutil.rmtree(sys.argv[1])
for step in range(20_000):
    tracker.log({"loss": 1.0}, step=step, subset="train")
tracker.close()
"""
    process = python(code, str(tmp_path / ".aim"))
    _, error = process.communicate(timeout=60)
    assert process.returncode == 0
    assert error.startswith(WARNING)
    assert error.count("\n") == 1


def use(tracker: Display) -> None:
    tracker.log({"loss": 1.0}, step=1, subset="train")
    tracker.text("samples", ["a"], step=1)
    tracker.figure(Path("figure.json"), step=1)
    tracker.close()
    tracker.close()


def check_one_warning(capsys: pytest.CaptureFixture[str], reason: str) -> None:
    output, error = capsys.readouterr()
    assert output == ""
    assert error.startswith(WARNING)
    assert reason in error
    assert error.endswith("; metrics.jsonl keeps everything\n")
    assert error.count("\n") == 1


def test_a_file_in_the_place_of_the_repository_only_warns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".aim").write_text("")
    use(make_tracker(tmp_path / ".aim"))
    check_one_warning(capsys, "FileExistsError")


def test_a_directory_that_cannot_be_written_only_warns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    # Not by the directory's mode: root may write everywhere.
    monkeypatch.setattr(Path, "mkdir", refuse)
    use(make_tracker(tmp_path / ".aim"))
    check_one_warning(capsys, "PermissionError")


def test_a_python_without_aim_only_warns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "aim", None)
    use(make_tracker(tmp_path / ".aim"))
    check_one_warning(capsys, "Aim is not installed")


class Failing(NoTracker):
    """Fails where it is told to."""

    def __init__(self, where: str) -> None:
        self.where = where

    def log(self, metrics: Mapping[str, float], *, step: int, subset: str) -> None:
        self._fail("log")

    def text(self, name: str, samples: Sequence[str], *, step: int) -> None:
        self._fail("text")

    def figure(self, path: Path, *, step: int) -> None:
        self._fail("figure")

    def close(self) -> None:
        self._fail("close")

    def _fail(self, here: str) -> None:
        if here == self.where:
            raise RuntimeError


@pytest.mark.parametrize("where", ["log", "text", "figure", "close"])
def test_a_failing_tracker_warns_once_and_is_off(
    where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = Guarded(lambda: Failing(where), title="Aim")
    use(tracker)
    use(tracker)
    check_one_warning(capsys, "RuntimeError")


class Silent(Failing):
    """Never answers where it is told to."""

    def __init__(self, where: str, end: threading.Event) -> None:
        super().__init__(where)
        self.end = end
        self._fail("open")

    def _fail(self, here: str) -> None:
        if here == self.where:
            self.end.wait()


@pytest.mark.parametrize("where", ["open", "log", "text", "figure", "close"])
def test_a_tracker_that_never_answers_is_given_up(
    where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    end = threading.Event()
    tracker = Guarded(lambda: Silent(where, end), title="Aim", identity="kept", patience=0.1)
    use(tracker)
    use(tracker)
    end.set()
    assert tracker.identity == ("kept" if where == "open" else None)
    check_one_warning(capsys, "no answer in 0.1 s")


FULL = """
import errno, faulthandler, gc, itertools, os, sys, threading
from pathlib import Path
from platform_aim.repository import import_aim, open_repository
from platform_aim.tracker import AimTracker
from platform_core.record import tracker as record
from platform_core.record.directory import RunDirectory

faulthandler.dump_traceback_later(110, exit=True)
runs, about = Path(sys.argv[1]), record.About("x", {"process": "duo"}, {"seed": 1}, {})
open_repository(runs / ".aim")

def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")

def begin(name, patience):
    make = lambda: AimTracker.open(RunDirectory(runs / name), about, None)
    return record.Guarded(make, title="Aim", patience=patience)

def train(tracker):
    for step in range(3):
        tracker.log({"loss": 1.0}, step=step, subset="train")
    tracker.close()
    gc.collect()
"""

COLLECTED = """
from aim.sdk.reporter import RunStatusReporter

def fails(self, about):
    RunStatusReporter._touch_flag = full  # what a heartbeat writes, which closing waits for
    full()

AimTracker._describe = fails
tracker = begin("x", 60.0)
record._ABANDONED.clear()
del tracker
gc.collect()
print("trains on")
"""

EVERYWHERE = """
gc.freeze()
seen = 0

def trace_until(end):
    calls = itertools.count()
    def trace(frame, event, argument):
        global seen
        if "platform_aim" in frame.f_code.co_filename or "/aim/" in frame.f_code.co_filename:
            seen = next(calls)
            if seen == end:
                full()
    threading.settrace(trace)

for number in itertools.count(0, 9):
    trace_until(number)
    tracker = begin(str(number), 3.0)
    threading.settrace(None)
    train(tracker)
    if seen < number:
        break
print(number, "points; trains on")
os._exit(0)
"""


def trained_on_a_full_disk(runs: Path, code: str) -> tuple[str, str]:
    process = subprocess.run(
        [sys.executable, "-c", FULL + code, str(runs)], capture_output=True, text=True, timeout=120
    )
    assert process.returncode == 0, process.stderr
    return process.stdout, process.stderr


@pytest.mark.slow
def test_the_training_does_not_wait_for_what_garbage_collection_closes(tmp_path: Path) -> None:
    output, error = trained_on_a_full_disk(tmp_path, COLLECTED)
    assert output == "trains on\n"
    assert error.startswith(WARNING + "OSError: [Errno 28] No space left on device")


@pytest.mark.slow
def test_a_disk_that_is_full_wherever_a_run_begins_costs_a_warning(tmp_path: Path) -> None:
    output, error = trained_on_a_full_disk(tmp_path, EVERYWHERE)
    points, said = output.split(maxsplit=1)
    assert int(points) > 100
    assert said == "points; trains on\n"
    assert error.count(WARNING) > int(points) / 9 / 2


@pytest.mark.slow
def test_indexing_waits_for_another_that_is_indexing_and_then_gives_up(repository: Path) -> None:
    code = "tracker.close(); held = tracker._tracker._repo._get_index_tree('meta', 0).view(())\n"
    process = python(code + "print('held', flush=True); sys.stdin.read()", str(repository))
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    repo = open_repository(repository)
    assert not index(repo, repo.list_all_runs(), patience=0.2)
    process.communicate("")
    assert index(repo, repo.list_all_runs(), patience=5.0)


def test_no_tracker_is_opened_where_none_is_wanted(tmp_path: Path) -> None:
    use(Several({}))
    assert list(tmp_path.iterdir()) == []
