"""The Aim repository of a directory of runs, made anew; runs that write at once and are killed."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from platform_aim.rebuild import complete
from platform_aim.repository import end_dead_runs, in_use, index, is_alive, open_repository
from platform_aim.tracker import AimTracker
from platform_core.cli import main
from platform_core.component import ROLES
from platform_core.errors import UsageError
from platform_core.evaluation import figures
from platform_core.evaluation.trajectory import Trajectory
from platform_core.record import metrics
from platform_core.record.directory import BETWEEN_SAMPLES, RunDirectory
from platform_core.record.files import write_json, write_text
from platform_core.record.metrics import MetricsLog
from platform_core.record.sweep import find_runs
from platform_core.record.tracker import Guarded, about, identities, new_hash

LOOK_EVERY = 5
BEGAN = 1_700_000_000.5
WAY = Trajectory([[2, 2], [0, 1]], [0.0, 1.0], vocab_size=2)


def begin(path: Path, *, process: str = "duo", learning_rate: float = 1e-3) -> RunDirectory:
    """A run directory as a run leaves it before its first step."""
    directory = RunDirectory(path)
    directory.create()
    roles = {role: {"name": process if role == "process" else "any"} for role in ROLES}
    config = {**roles, "train": {"learning_rate": learning_rate}, "seed": 1}
    write_text(directory.config, yaml.safe_dump(config))
    write_json(directory.environment, {"packages": {"torch": "2.13.0"}})
    write_json(directory.tracking, {"began": BEGAN, "aim_run": new_hash()})
    return directory


def write(directory: RunDirectory, steps: int, *, pause: float = 0.0) -> None:
    """What a run records and tracks, without training."""
    known = identities(directory)["aim"]
    tracker = Guarded.of(AimTracker, directory, about(directory, {"torch": "2.13.0"}), known)
    record = MetricsLog(directory.metrics)
    for step in range(1, steps + 1):
        numbers = {"loss": 1 / step, "gradient_norm": float(step)}
        record.log(numbers, step=step, subset="train")
        tracker.log(numbers, step=step, subset="train")
        if step % LOOK_EVERY == 0:
            look(directory, tracker, record, step)
        time.sleep(pause)
    record.close()
    tracker.close()


def look(directory: RunDirectory, tracker: Any, record: MetricsLog, step: int) -> None:
    record.log({"bits_per_character": 9.0 / step}, step=step, subset="validation")
    tracker.log({"bits_per_character": 9.0 / step}, step=step, subset="validation")
    texts = [f"first of {step}", "second\n"]
    write_text(directory.samples / f"step-{step:07d}.txt", BETWEEN_SAMPLES.join(texts) + "\n")
    tracker.text("samples", texts, step=step)
    path = directory.figures / f"trajectory-step-{step:07d}.json"
    figures.keep({"step": step, **WAY.record()}, path)
    tracker.figure(path, step=step)


def content(runs: Path) -> dict[str, Any]:
    """Everything that a person sees of the runs of a repository, by their hashes."""
    from aim.sdk.types import QueryReportMode

    repo = open_repository(runs / ".aim")

    def found(kind: str) -> list[Any]:
        return list(getattr(repo, f"query_{kind}")("", report_mode=QueryReportMode.DISABLED))

    seen: dict[str, Any] = {}
    matches = repo.query_runs("", report_mode=QueryReportMode.DISABLED).iter_runs()
    for run in (match.run for match in matches):
        names = ("process", "train", "seed", "versions")
        seen[run.hash] = {name: run[name] for name in names} | {
            "name": run.name,
            "experiment": run.experiment,
            "tags": run.tags,
            "active": run.active,
        }
    for curve in found("metrics"):
        steps, (values, _, _) = curve.data.items_list()
        place = (curve.name, *curve.context.to_dict().items())
        seen[curve.run.hash][place] = sorted(zip(steps, values, strict=True))
    for texts in found("texts"):
        steps, (values, _, _) = texts.data.items_list()
        written = [[text.data for text in value] for value in values]
        seen[texts.run.hash][texts.name] = dict(zip(steps, written, strict=True))
    for images in found("images"):
        steps, (values, _, _) = images.data.items_list()
        drawn = [bytes(image.storage["data"]) for image in values]
        seen[images.run.hash][images.name] = dict(zip(steps, drawn, strict=True))
    return seen


def rebuilt(runs: Path, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    assert main(["dashboard", "--rebuild", str(runs)]) == 0
    return tuple(capsys.readouterr())


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of two trials, tracked as they ran."""
    sweep = tmp_path_factory.mktemp("project") / "noise"
    (sweep / "trials").mkdir(parents=True)
    write_json(sweep / "trials.json", {})
    write(begin(sweep / "trials" / "duo"), steps=6)
    write(begin(sweep / "trials" / "mdlm", process="mdlm", learning_rate=2e-3), steps=5)
    return sweep


@pytest.mark.slow
def test_a_rebuilt_repository_has_the_same_runs(
    written: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = written / "trials"
    before = content(runs)
    assert {run["process"]["name"] for run in before.values()} == {"duo", "mdlm"}
    assert {run["experiment"] for run in before.values()} == {"noise"}
    half = RunDirectory(runs / "duo")
    with half.metrics.open("a") as stream:
        stream.write('{"step": 7, "sub')
    output, error = rebuilt(written, capsys)
    assert output.startswith(f"2 runs in {runs / '.aim'}, ")
    assert error == ""
    assert content(runs) == before
    [run] = [run for run in before.values() if run["name"] == "duo"]
    assert run[("loss", ("subset", "train"))] == [(s, 1 / s) for s in range(1, 7)]
    assert run["samples"] == {5: ["first of 5", "second\n"]}
    assert run["trajectory"][5].startswith(b"\x89PNG")
    assert sorted(path.name for path in runs.iterdir()) == [".aim", "duo", "mdlm"]


@pytest.mark.slow
def test_runs_without_a_name_get_one_damaged_ones_are_told_and_lost_ones_kept(
    written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(written / "trials", runs)
    # Killed before it was named, damaged in the middle, and removed, but for what Aim has of it.
    killed, damaged = RunDirectory(runs / "killed"), RunDirectory(runs / "damaged")
    shutil.copytree(runs / "duo", killed.path)
    killed.tracking.unlink()
    shutil.copytree(runs / "duo", damaged.path)
    damaged.metrics.write_text("not JSON\n" + damaged.metrics.read_text())
    lost = identities(RunDirectory(runs / "mdlm"))["aim"]
    shutil.rmtree(runs / "mdlm")
    output, error = rebuilt(runs, capsys)
    assert output.startswith("2 runs in ")
    assert f"{runs / '.aim-before'} is the old one" in output
    assert f"{damaged.path} is damaged" in error
    assert "metrics.jsonl:1 is no record" in error
    names = {run["name"]: (key, run["experiment"]) for key, run in content(runs).items()}
    assert names.keys() == {"duo", "killed"}
    assert names["killed"] == (identities(killed)["aim"], "duo")
    assert (runs / ".aim-before" / "meta" / "chunks" / lost).is_dir()


def test_a_repository_in_use_is_not_replaced(
    written: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with in_use(written / "trials" / ".aim"):
        assert main(["dashboard", "--rebuild", str(written)]) == 2
    assert "is in use by a run or a dashboard" in capsys.readouterr().err


def test_a_directory_without_runs_says_what_to_do(tmp_path: Path) -> None:
    from platform_aim.rebuild import rebuild

    with pytest.raises(UsageError, match=r"has no run directories .*; name their parent"):
        rebuild(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_runs_are_found_from_their_sweep_and_from_one_of_them(written: Path) -> None:
    trials = written / "trials"
    assert find_runs(written) == find_runs(trials) == find_runs(trials / "duo") == trials


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_rebuild
from test_rebuild import begin, write
test_rebuild.LOOK_EVERY = 15
directory = begin(Path(sys.argv[2]))
print("begun", flush=True)
write(directory, steps=int(sys.argv[3]), pause=0.02)
"""


def writer(path: Path, steps: int) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-c",
        WRITER,
        str(Path(__file__).parent),
        str(path),
        str(steps),
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.slow
def test_eight_runs_write_at_once_and_three_are_killed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, steps = tmp_path / "runs", 30
    processes = {f"run-{number}": writer(runs / f"run-{number}", steps) for number in range(8)}
    killed = ["run-1", "run-4", "run-6"]
    chance = random.Random(0)
    for name in killed:
        until = chance.randrange(4, 20)
        while lines(runs / name / "metrics.jsonl") < until:
            assert processes[name].poll() is None
            time.sleep(0.01)
        os.kill(processes[name].pid, signal.SIGKILL)
    outcomes = {name: process.communicate() for name, process in processes.items()}
    codes = {name: process.returncode for name, process in processes.items()}
    assert codes == {name: -signal.SIGKILL if name in killed else 0 for name in processes}
    assert {error for _, error in outcomes.values()} == {""}

    hashes = {name: identities(RunDirectory(runs / name))["aim"] for name in processes}
    repo = open_repository(runs / ".aim")
    dead = {hashes[name] for name in killed}
    assert set(end_dead_runs(repo)) == dead
    assert not any((runs / ".aim" / "locks").iterdir())
    assert not any((runs / ".aim" / "platform.living").iterdir())
    index(repo, hashes.values(), patience=0)
    complete(runs, dead)
    before = content(runs)
    assert before.keys() == set(hashes.values())
    assert not any(run["active"] for run in before.values())

    rebuilt(runs, capsys)
    after = content(runs)
    assert after.keys() == before.keys()
    for name, run_hash in hashes.items():
        losses = {
            record["step"]: record["loss"]
            for record in metrics.read(runs / name / "metrics.jsonl")
            if record["subset"] == "train"
        }
        curve = after[run_hash][("loss", ("subset", "train"))]
        assert dict(curve) == losses
        assert name in killed or len(curve) == steps
    assert before == after


@pytest.mark.slow
def test_only_the_dead_are_ended(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    living, dead = writer(runs / "living", 10_000), writer(runs / "dead", 10_000)
    for name, process in (("living", living), ("dead", dead)):
        while not lines(runs / name / "metrics.jsonl"):
            assert process.poll() is None
            time.sleep(0.01)
    dead.kill()
    dead.communicate()
    hashes = [identities(RunDirectory(runs / name))["aim"] for name in ("living", "dead")]
    repository = runs / ".aim"
    assert [is_alive(repository, run_hash) for run_hash in hashes] == [True, False]
    assert end_dead_runs(open_repository(repository)) == [hashes[1]]
    assert [is_alive(repository, run_hash) for run_hash in hashes] == [True, False]
    assert main(["dashboard", "--rebuild", str(runs)]) == 2
    living.kill()
    living.communicate()
    assert main(["dashboard", "--rebuild", str(runs)]) == 0
