"""Trackers: which are chosen, several at once, and the contract of each."""

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import pytest

from platform_aim.repository import open_repository
from platform_aim.tracker import AimTracker
from platform_core.composition.tracking import choose_trackers
from platform_core.errors import UsageError
from platform_core.record.directory import RunDirectory
from platform_core.record.files import write_json
from platform_core.record.sweep import SweepDirectory
from platform_core.record.tracker import (
    About,
    Guarded,
    NoTracker,
    Several,
    Tracker,
    identities,
    keep_identities,
    open_trackers,
    prepare_trackers,
    when_began,
)
from platform_core.registry.loading import find_plugins, load_plugins
from platform_core.templates.tracker.tracker import NewPart, rows
from platform_core.testing import TrackerContract
from platform_core.testing.tracker import LEVELS, Point
from platform_core.training.trackers import MLflow, TensorBoard, Told, WandB, has_key
from platform_sweep.command import _prepare_tracking
from platform_sweep.file import read_sweep
from platform_sweep.plan import make_plan

ABOUT = About("tiny", {"process": "mdlm"}, {"train": {"steps": 3}}, {})


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No key, no server and no settings of whoever runs the tests."""
    for name in [name for name in os.environ if name.startswith(("WANDB_", "MLFLOW_", "TRACKIO_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    # What trackers set is taken back, too.
    for name in ("WANDB_ERROR_REPORTING", "MLFLOW_DISABLE_TELEMETRY", "MLFLOW_ALLOW_FILE_STORE"):
        monkeypatch.setenv(name, {"WANDB_ERROR_REPORTING": "false"}.get(name, "true"))


class TestCsv(TrackerContract):
    tracker = NewPart

    def points(self, directory: RunDirectory, identity: str | None) -> Sequence[Point]:
        table = rows(directory.path / "new-part" / "metrics.csv")
        return [(name, int(step), float(value)) for step, name, value in table]


class TestTensorBoard(TrackerContract):
    tracker = TensorBoard

    def points(self, directory: RunDirectory, identity: str | None) -> Sequence[Point]:
        events = read_events(directory)
        return [
            (name, point.step, point.value)
            for name in events.Tags()["scalars"]
            for point in events.Scalars(name)
        ]


@pytest.mark.slow
class TestMLflow(TrackerContract):
    tracker = MLflow

    def points(self, directory: RunDirectory, identity: str | None) -> Sequence[Point]:
        import mlflow

        client = mlflow.MlflowClient()
        assert client.get_run(identity).info.status == "FINISHED"
        names = client.get_run(identity).data.metrics
        return [
            (name, point.step, point.value)
            for name in names
            for point in client.get_metric_history(identity, name)
        ]


@pytest.mark.slow
class TestWandB(TrackerContract):
    tracker = WandB

    def points(self, directory: RunDirectory, identity: str | None) -> Sequence[Point]:
        return [
            (name, row["_step"], value)
            for row in history(directory, identity)
            for name, value in row.items()
            if not name.startswith("_")
        ]


@pytest.mark.slow
class TestAim(TrackerContract):
    tracker = AimTracker

    def points(self, directory: RunDirectory, identity: str | None) -> Sequence[Point]:
        from aim.sdk.types import QueryReportMode

        found = open_repository(directory.path.parent / ".aim").query_metrics(
            f'run.hash == "{identity}"', report_mode=QueryReportMode.DISABLED
        )
        points = []
        for metric in found:
            steps, (values, _, _) = metric.data.items_list()
            name = f"{metric.context['subset']}/{metric.name}"
            points += [(name, step, value) for step, value in zip(steps, values, strict=True)]
        return points


def read_events(directory: RunDirectory) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(directory.path / "tensorboard")).Reload()


def history(directory: RunDirectory, identity: str | None) -> Iterator[dict[str, Any]]:
    """The rows that W&B would send, from all processes of a run, in their order."""
    for path in sorted(directory.path.glob(f"wandb/offline-run-*/run-{identity}.wandb")):
        for record in records(path):
            if record.WhichOneof("record_type") == "history":
                yield {
                    item.key or ".".join(item.nested_key): json.loads(item.value_json)
                    for item in record.history.item
                }


def records(path: Path) -> list[Any]:
    """What a file of W&B's says, once the process that writes it has written the end."""
    from wandb.proto.wandb_internal_pb2 import Record

    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = [Record.FromString(content) for content in entries(path.read_bytes())]
        if any(record.WhichOneof("record_type") == "exit" for record in found):
            return found
        time.sleep(0.1)
    pytest.fail(f"{path} has no end")


def entries(content: bytes) -> Iterator[bytes]:
    """What is in a file of W&B's: a log of LevelDB's, in blocks of 32 KiB, after 7 bytes."""
    at, whole = 7, b""
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield whole
            whole = b""


TRACKIO = """
import sys
from pathlib import Path
from platform_core.record.directory import RunDirectory
from platform_core.record.tracker import About, Guarded
from platform_core.training.trackers import Trackio
directory = RunDirectory(Path(sys.argv[1]))
directory.path.mkdir(parents=True, exist_ok=True)
for steps, step in ((range(1, 5), 0), (range(3, 7), 2)):
    about = About("x", {"process": "mdlm"}, {"train": {"steps": 6}}, {}, step=step)
    tracker = Guarded.of(Trackio, directory, about, "0123456789")
    for number in steps:
        tracker.log({"loss": 1 / number}, step=number, subset="train")
    tracker.text("samples", ["a", "b"], step=number)
    tracker.close()
import trackio
[run] = trackio.SQLiteStorage.get_run_records("dlm-platform")
for row in trackio.SQLiteStorage.get_logs("dlm-platform", run["name"], run_id=run["id"]):
    if "train/loss" in row:
        print(row["step"], row["train/loss"])
"""


@pytest.mark.slow
def test_trackio_keeps_a_resumed_run_without_duplicates(tmp_path: Path) -> None:
    """In a process of its own: Trackio is told once, when it is imported, where to write."""
    done = subprocess.run(
        [sys.executable, "-c", TRACKIO, str(tmp_path / "runs" / "x")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    expected = [[step, 1 / step] for step in range(1, 7)]
    assert done.stderr == ""
    assert [[*map(float, line.split())] for line in done.stdout.splitlines()] == expected
    assert (tmp_path / "runs" / ".trackio" / "dlm-platform.db").is_file()


def test_tensorboard_shows_samples_figures_and_options(tmp_path: Path) -> None:
    from PIL import Image

    directory = look(TensorBoard, tmp_path)
    events = read_events(directory)
    [text] = events.Tensors("samples/text_summary")
    assert text.step == 2
    assert text.tensor_proto.string_val[0].decode() == "    My fellow\n\n---\n\n    citizens\n    "
    [image] = events.Images("levels")
    with Image.open(directory.figures / "levels.png") as plot:
        assert (image.step, image.width, image.height) == (2, *plot.size)
    assert "_hparams_/experiment" in events.summary_metadata
    assert sorted(path.name for path in directory.path.iterdir()) == ["figures", "tensorboard"]


def test_mlflow_keeps_samples_figures_and_options_beside_the_run(tmp_path: Path) -> None:
    import mlflow

    directory = look(MLflow, tmp_path)
    [artifact] = tmp_path.glob("runs/mlruns/*/*/artifacts")
    files = {str(path.relative_to(artifact)) for path in artifact.rglob("*") if path.is_file()}
    assert files == {"samples/step-0000002.txt", "levels/step-0000002/levels.png"}
    run = mlflow.MlflowClient().get_run(artifact.parent.name)
    assert run.data.params["train.steps"] == "3"
    assert run.info.run_name == "tiny"
    assert directory.path.parent == tmp_path / "runs"


def test_wandb_keeps_samples_and_figures_offline_in_the_run(tmp_path: Path) -> None:
    directory = look(WandB, tmp_path)
    [row] = history(directory, "mine")
    assert row["samples._type"] == "table-file"
    assert row["levels._type"] == "image-file"
    [table] = directory.path.glob("wandb/offline-run-*-mine/files/media/table/*.json")
    content = json.loads(table.read_text())
    assert content["columns"] == ["sample"]
    assert content["data"] == [["My fellow"], ["citizens\n"]]


def look(kind: type[Tracker], tmp_path: Path) -> RunDirectory:
    """A run that was looked at once, at step 2."""
    directory = RunDirectory(tmp_path / "runs" / "tiny")
    write_json(directory.figures / "levels.json", LEVELS)
    tracker = kind.open(directory, ABOUT, "mine" if kind is WandB else None)
    tracker.text("samples", ["My fellow", "citizens\n"], step=2)
    tracker.figure(directory.figures / "levels.json", step=2)
    tracker.close()
    return directory


def test_wandb_is_online_only_where_there_is_a_key(tmp_path: Path) -> None:
    assert has_key({"WANDB_API_KEY": "0" * 40})
    assert not has_key({}, home=lambda: tmp_path)
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password secret\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert has_key({}, home=lambda: tmp_path)
    assert not has_key({"WANDB_BASE_URL": "https://wandb.example.org"}, home=lambda: tmp_path)


def test_what_was_told_is_told_once_even_after_two_resumptions(tmp_path: Path) -> None:
    path = tmp_path / "tracked" / "any.json"
    assert [Told(path).new(["a", "b"], step) for step in (1, 2)] == [["a", "b"]] * 2
    for _ in range(2):
        resumed = Told(path)
        assert resumed.new(["a"], 1) == []
        assert resumed.new(["a", "b"], 2) == []
    assert resumed.new(["b", "c"], 2) == ["c"]
    assert Told(path).new(["a", "c"], 2) == []
    assert Told(path).new(["a", "c"], 3) == ["a", "c"]


class Listed(Tracker):
    """Keeps what it is told in lists that the tests can see."""

    title = "Listed"
    told: dict[str, list[Any]] = {}

    def __init__(self, identity: str) -> None:
        self._identity = identity

    @classmethod
    def open(cls, directory: RunDirectory, about: About, identity: str | None) -> Self:
        return cls(identity or "new")

    @property
    def identity(self) -> str:
        return self._identity

    def log(self, metrics: Mapping[str, float], *, step: int, subset: str) -> None:
        self.told.setdefault(self.title, []).append((subset, step, dict(metrics)))

    def text(self, name: str, samples: Sequence[str], *, step: int) -> None:
        self.told.setdefault(self.title, []).append((name, step, list(samples)))

    def figure(self, path: Path, *, step: int) -> None:
        self.told.setdefault(self.title, []).append((path, step))

    def close(self) -> None:
        self.told.setdefault(self.title, []).append("closed")


class Other(Listed):
    """Another one."""

    title = "Other"


def tell(tracker: Several | Guarded) -> None:
    tracker.log({"loss": 1.0}, step=1, subset="train")
    tracker.text("samples", ["a"], step=1)
    tracker.figure(Path("figure.json"), step=1)
    tracker.close()


def test_two_trackers_at_once_are_told_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Listed, "told", {})
    tell(open_trackers({"listed": Listed, "other": Other}, RunDirectory(tmp_path), ABOUT))
    assert Listed.told["Listed"] == Listed.told["Other"]
    assert len(Listed.told["Listed"]) == 4


def test_tensorboard_and_mlflow_at_once_show_the_same_points(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "runs" / "tiny")
    opened = open_trackers({"tensorboard": TensorBoard, "mlflow": MLflow}, directory, ABOUT)
    for step in (1, 2):
        opened.log({"loss": 0.5 * step, "norm": 2.0}, step=step, subset="train")
    opened.close()
    known = identities(directory)
    one = TestTensorBoard().points(directory, known["tensorboard"])
    two = TestMLflow().points(directory, known["mlflow"])
    assert sorted(one) == sorted(two)
    assert len(one) == 4


@pytest.mark.parametrize("where", ["__init__", "log", "text", "figure", "close"])
@pytest.mark.parametrize("raised", [RuntimeError, SystemExit])
def test_a_tracker_that_fails_costs_one_warning_and_not_the_others(
    where: str,
    raised: type[BaseException],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Listed, "told", {})

    def fail(*_: object, **__: object) -> None:
        raise raised("broken")

    failing = type("Failing", (Other,), {where: fail})
    opened = open_trackers({"failing": failing, "listed": Listed}, RunDirectory(tmp_path), ABOUT)
    tell(opened)
    tell(opened)
    assert capsys.readouterr().err == (
        f"platform: warning: Other tracking is off: {raised.__name__}: broken; "
        "metrics.jsonl keeps everything\n"
    )
    assert len(Listed.told["Listed"]) == 4  # what is closed is told nothing more


def test_what_fails_while_it_begins_is_never_collected(capsys: pytest.CaptureFixture[str]) -> None:
    collected = []

    class Half(NoTracker):
        def __init__(self) -> None:
            raise RuntimeError

        def __del__(self) -> None:
            collected.append(self)

    Guarded(Half, title="Half").close()
    gc.collect()
    assert "Half tracking is off" in capsys.readouterr().err
    assert collected == []


def test_a_sweep_prepares_each_tracker_and_goes_on_without_those_that_fail(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared: list[Path] = []

    class Preparing(NoTracker):
        @classmethod
        def prepare(cls, runs: Path) -> None:
            prepared.append(runs)

    class Failing(NoTracker):
        title = "Failing"

        @classmethod
        def prepare(cls, runs: Path) -> None:
            raise OSError("no room")

    prepare_trackers({"failing": Failing, "preparing": Preparing}, tmp_path)
    assert prepared == [tmp_path]
    assert capsys.readouterr().err == (
        "platform: warning: Failing could not be prepared: OSError: no room; each run tries again\n"
    )


def test_a_sweep_prepares_all_trackers_of_its_trials_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[tuple[str, Path]] = []
    for kind in (AimTracker, TensorBoard, MLflow):
        monkeypatch.setattr(
            kind, "prepare", classmethod(lambda cls, runs: prepared.append((cls.title, runs)))
        )
    file = tmp_path / "mine.yaml"
    file.write_text("axes: {track.to: ['aim,mlflow', none, mlflow], seed: [1, 2]}")
    plan, directory = make_plan(read_sweep(file), load_plugins()), SweepDirectory(tmp_path / "out")
    assert [trial.trackers for trial in plan.trials[::2]] == [("aim", "mlflow"), (), ("mlflow",)]
    _prepare_tracking(directory, plan, load_plugins())
    assert prepared == [("Aim", directory.trials), ("MLflow", directory.trials)]


def test_a_sweep_refuses_trials_whose_tracker_is_not_there(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("axes: {track.to: [aim, tensorbord]}")
    with pytest.raises(UsageError, match="1 of 2 trials cannot run(.|\\n)*unknown tracker"):
        make_plan(read_sweep(file), load_plugins())


def test_identities_are_kept_for_a_resumed_run(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    write_json(directory.tracking, {"began": 12.5, "aim_run": "abc"})
    assert identities(directory) == {"aim": "abc"}
    keep_identities(directory, {"wandb": "def", "mlflow": None}, began=99.0)
    assert identities(directory) == {"aim": "abc", "wandb": "def"}
    assert when_began(directory) == 12.5
    opened = open_trackers({"wandb": Listed, "mlflow": Other}, directory, ABOUT)
    opened.close()
    assert identities(directory) == {"aim": "abc", "wandb": "def", "mlflow": "new"}


@pytest.mark.parametrize("kept", [{}, {"began": 1.0, "aim_run": None}])
def test_a_run_that_was_not_tracked_has_no_identity(tmp_path: Path, kept: dict[str, Any]) -> None:
    directory = RunDirectory(tmp_path)
    if kept:
        write_json(directory.tracking, kept)
    assert identities(directory) == {}


def test_trackers_are_chosen_by_name_in_order() -> None:
    plugins = load_plugins()
    chosen = choose_trackers("tensorboard, aim", plugins)
    assert list(chosen.kinds) == ["tensorboard", "aim"]
    assert choose_trackers("none", plugins).kinds == {}
    assert list(choose_trackers("auto", plugins).kinds) == ["aim"]
    assert choose_trackers("auto", plugins).note() == ""
    with pytest.raises(UsageError, match="unknown tracker 'tensorbord'; did you mean tensorboard?"):
        choose_trackers("aim,tensorbord", plugins)
    with pytest.raises(
        UsageError, match=r"track.to is 'aim,none'; it must be auto, none, or names"
    ):
        choose_trackers("aim,none", plugins)


def test_a_chosen_tracker_that_cannot_be_used_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform_core.training.trackers.find_spec", lambda name: None)
    with pytest.raises(
        UsageError, match=r"names wandb, which cannot be used here: W&B is not installed \(pip"
    ):
        choose_trackers("wandb", load_plugins())


def test_auto_takes_tensorboard_and_then_nothing_and_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("platform_aim.tracker.find_spec", lambda name: None)
    chosen = choose_trackers("auto", load_plugins())
    assert list(chosen.kinds) == ["tensorboard"]
    assert chosen.note(Path("runs")) == (
        "runs are shown by TensorBoard, because Aim is not installed (it needs Python below 3.13); "
        "look with: tensorboard --logdir runs"
    )
    monkeypatch.setattr("platform_core.training.trackers.find_spec", lambda name: None)
    chosen = choose_trackers("auto", load_plugins())
    assert chosen.kinds == {}
    assert chosen.note(Path("runs")) == (
        "runs are shown by no tracker, because Aim is not installed (it needs Python below 3.13); "
        "and TensorBoard is not installed (pip install tensorboard)"
    )


def test_auto_goes_on_with_what_has_shown_a_resumed_run() -> None:
    plugins = load_plugins()
    assert list(choose_trackers("auto", plugins, ["tensorboard"]).kinds) == ["tensorboard"]
    assert list(choose_trackers("auto", plugins, ["vanished"]).kinds) == ["aim"]


def test_without_the_plugin_of_aim_auto_takes_tensorboard() -> None:
    chosen = choose_trackers("auto", find_plugins({"PLATFORM_DISABLE_PLUGINS": "aim"}))
    assert list(chosen.kinds) == ["tensorboard"]
    assert chosen.why == "plugin aim, which brings aim, is not there: it is disabled"


def test_a_resumed_run_goes_on_without_a_tracker_that_was_uninstalled() -> None:
    without = find_plugins({"PLATFORM_DISABLE_PLUGINS": "aim"})
    chosen = choose_trackers("aim,tensorboard", without, known=["aim", "tensorboard"])
    assert list(chosen.kinds) == ["tensorboard"]
    assert chosen.note().startswith(
        "runs are shown by TensorBoard, because plugin aim, which brings"
    )
    with pytest.raises(UsageError, match="unknown tracker 'aim'"):
        choose_trackers("aim,tensorboard", without)
