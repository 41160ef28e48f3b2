"""Sweeps: what a file spans, that nothing starts unless all can, and what survives a stop."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from platform_core.cli import main
from platform_core.composition.compose import compose
from platform_core.errors import EXIT_INTERRUPTED, UsageError
from platform_core.record.sweep import State, SweepDirectory
from platform_core.registry.loading import load_plugins
from platform_sweep import attempt as attempts
from platform_sweep import plan as plans
from platform_sweep.attempt import Attempt, Task
from platform_sweep.drive import _Report, duration
from platform_sweep.file import SlurmOptions, expand, read_sweep
from platform_sweep.plan import make_plan, trial_name
from platform_sweep.slurm import Slurm, TrialJob, make_executor

STAND_IN = Path(__file__).parent / "stand_in.py"
TINY = {
    "process": "first",
    "backbone": "small",
    "backbone.hidden_size": 16,
    "track.aim": False,
}


@pytest.fixture(autouse=True)
def home(stub_parts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(**content: Any) -> Path:
    path = Path("s.yaml")
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


# What a file spans.


def points(**content: Any) -> list[tuple[dict[str, str], dict[str, Any]]]:
    return [(p.labels, p.options) for p in expand(read_sweep(write(**content)))]


def test_axes_multiply_in_the_order_of_the_file_and_seeds_come_last() -> None:
    found = points(set={"train.steps": 5}, axes={"process": ["duo", "mdlm"]}, seeds=2)
    assert found == [
        (
            {"process": process, "seed": str(seed)},
            {"train.steps": 5, "process": process, "seed": seed},
        )
        for process in ("duo", "mdlm")
        for seed in (1, 2)
    ]


def test_a_mapping_sets_coupled_options_and_may_be_labelled() -> None:
    small = {"label": "small", "backbone.hidden_size": 64, "backbone.num_heads": 4}
    large = {"backbone.hidden_size": 128, "backbone.num_heads": 8}
    assert points(axes={"size": [small, large]}) == [
        ({"size": "small"}, {"backbone.hidden_size": 64, "backbone.num_heads": 4}),
        ({"size": "hidden_size=128,num_heads=8"}, large),
    ]


def test_an_axis_goes_over_what_is_set_for_all() -> None:
    assert points(set={"train.steps": 5}, axes={"train.steps": [7]})[0][1] == {"train.steps": 7}


@pytest.mark.parametrize(
    ("exclusion", "left"),
    [
        ({"process": "duo", "sampler.steps": 8}, {("duo", "2"), ("mdlm", "2"), ("mdlm", "8")}),
        ({"sampler.steps": [2, 8], "process": "mdlm"}, {("duo", "2"), ("duo", "8")}),
    ],
)
def test_an_exclusion_leaves_out_what_has_all_its_values(
    exclusion: dict[str, Any], left: set[tuple[str, str]]
) -> None:
    axes = {"process": ["duo", "mdlm"], "sampler.steps": [2, 8]}
    found = points(axes=axes, exclude=[exclusion])
    assert {tuple(labels.values()) for labels, _ in found} == left


def test_an_exclusion_may_name_a_label_or_an_option_behind_it() -> None:
    size = [{"label": "s", "train.clip": 1}, {"label": "m", "train.clip": 2}, {"train.clip": 3}]
    found = points(axes={"size": size}, exclude=[{"size": "s"}, {"train.clip": 2}])
    assert [labels for labels, _ in found] == [{"size": "clip=3"}]


def test_lists_of_a_measurement_expand() -> None:
    entry = {"sampler.steps": [8, 32], "sample.number": 4}
    sweep = read_sweep(write(axes={"seed": [1]}, evaluate=[entry]))
    assert [measurement.options for measurement in sweep.evaluate] == [
        {"sampler.steps": 8, "sample.number": 4},
        {"sampler.steps": 32, "sample.number": 4},
    ]


def test_a_measurement_may_be_of_some_trials_only() -> None:
    only = {"process": ["duo", "mdlm"]}
    entries = [{"json": True}, {"sampler.steps": [2, 4], "only": only}]
    sweep = read_sweep(write(axes={"process": ["duo", "ar", "mdlm"]}, evaluate=entries))
    every, some = {"json": True}, [{"sampler.steps": 2}, {"sampler.steps": 4}]
    assert [point.evaluate for point in expand(sweep)] == [[every, *some], [every], [every, *some]]
    entries = [{"json": True, "only": {"process": "sedd"}}]
    sweep = read_sweep(write(axes={"process": ["duo", "mdlm"]}, evaluate=entries))
    with pytest.raises(UsageError, match="only {'process': 'sedd'} names no trial"):
        expand(sweep)
    with pytest.raises(UsageError, match="only: nothing varies proces; did you mean process?"):
        read_sweep(write(axes={"process": ["duo"]}, evaluate=[{"only": {"proces": "duo"}}]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"axis": {}}, "s.yaml: unknown key 'axis'; did you mean axes?"),
        ({"seeds": 10**12}, "s.yaml: seeds is 1000000000000; no machine can serve so many"),
        ({"seeds": 5001, "axes": {"process": ["mdlm", "duo"]}}, "the axes have 10002 trials; no"),
        ({"seeds": 0}, "s.yaml: seeds is 0; it must be a number of them or a list"),
        ({"set": {"seed": 1}}, "nothing varies; give axes"),
        ({"axes": {"process": []}}, "axis process is []; it must be a list of at least one value"),
        ({"axes": {"process": "duo"}}, "axis process is 'duo'; it must be a list"),
        ({"axes": {"proces": ["duo"]}}, "axis proces is no option; did you mean process?"),
        ({"axes": {"trian.steps": [1]}}, "axis trian.steps is no option; did you mean train?"),
        ({"axes": {"x": [{"output": "a"}]}}, "axis x: output is no option (such as process"),
        ({"axes": {"x": [{"label": "a"}]}}, "axis x: {'label': 'a'} sets no option"),
        ({"axes": {"seed": [1, 1]}}, "axis seed has 1 twice"),
        ({"axes": {"seed": [1]}, "seeds": 2}, "seeds and an axis seed say the same"),
        ({"axes": {"seed": [1]}, "set": {"config": "a"}}, "set: config is no option"),
        ({"axes": {"seed": [1]}, "base": [1]}, "base is [1]; it must be a list of config files"),
        ({"axes": {"seed": [1]}, "exclude": [{"sead": 1}]}, "varies sead; did you mean seed?"),
        ({"axes": {"seed": [1]}, "exclude": [{"seed": 2}]}, "{'seed': 2} names no trial"),
        ({"axes": {"seed": [1]}, "exclude": [{"seed": 1}]}, "every trial is excluded"),
        ({"axes": {"seed": [1]}, "evaluate": [{"run": "x"}]}, "evaluate 1: run cannot be given"),
        ({"axes": {"seed": [1]}, "evaluate": [{"seed": []}]}, "evaluate 1: seed is an empty list"),
    ],
)
def test_a_mistake_in_the_file_is_one_line(content: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        points(**content)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"partion": "a"}, "slurm: unknown key 'partion'; did you mean partition?"),
        ({"time": "2h"}, "slurm.time is '2h'; it must be a whole number of at least 1"),
        ({"mem": 16}, "slurm.mem is 16; it must be text"),
        ({"setup": 3}, "slurm.setup must be a list of shell commands"),
    ],
)
def test_a_mistake_in_what_jobs_ask_for_is_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SlurmOptions.read(options, "slurm")


# What is checked before anything starts.


def test_names_of_trials_are_names_of_files() -> None:
    assert trial_name({"process": "duo", "seed": "1"}) == "process=duo,seed=1"
    awkward = trial_name({"size": "a/b: c"})
    assert awkward.startswith("size=a-b-c-")
    assert awkward != trial_name({"size": "a/b; c"})
    assert len(trial_name({"size": "x" * 300})) < 140


def test_equal_configs_are_one_trial_and_the_seed_is_as_composed() -> None:
    clip = [{"label": "one", "train.clip": 1}, {"label": "same", "train.clip": 1.0}]
    plan = make_plan(read_sweep(write(set=TINY, axes={"x": clip}, seeds=[3, 4])), load_plugins())
    assert [trial.name for trial in plan.trials] == ["x=one,seed=3", "x=one,seed=4"]
    assert plan.notes == ["x=same,seed=3 is the same run as x=one,seed=3, made once"] + [
        "x=same,seed=4 is the same run as x=one,seed=4, made once"
    ]
    words = [f"--{key}={value}" for key, value in TINY.items()]
    for seed, trial in zip((3, 4), plan.trials, strict=True):
        alone = [*words, "--train.clip=1", f"--seed={seed}"]
        assert trial.config == compose(alone, load_plugins(), prog="test")[0].config


def test_base_configs_are_under_what_is_set(home: Path) -> None:
    (home / "base.yaml").write_text("process: second\ntrain: {steps: 7, clip: 2}\n")
    others = {key: value for key, value in TINY.items() if key != "process"}
    sweep = read_sweep(write(base=["base.yaml"], set=others, axes={"train.clip": [3]}))
    config = yaml.safe_load(make_plan(sweep, load_plugins()).trials[0].config)
    assert (config["process"]["name"], config["train"]["steps"]) == ("second", 7)
    assert config["train"]["clip"] == 3


def test_a_dry_run_lists_the_trials_and_writes_nothing(
    capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    write(set=TINY, seeds=2)
    assert main(["sweep", "s.yaml", "--dry_run"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "seed=1",
        "seed=2",
        "2 trials, all valid; nothing was written",
    ]
    assert [path.name for path in home.iterdir()] == ["s.yaml"]


# Running, with a stand-in for the runs.


class Stage:
    """A sweep whose runs are played by the stand-in."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.directory = SweepDirectory(home / "out")

    def play(self, *words: str, script: dict[str, list[str]] | None = None) -> int:
        (self.home / "script.json").write_text(json.dumps(script or {}))
        return main(["sweep", "s.yaml", "--output", "out", *words])

    def calls(self) -> list[tuple[str, str, str]]:
        """Verb, trial and first word of each."""
        path = self.home / "calls.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        found = [json.loads(line) for line in lines]
        self.environments = [call["environment"] for call in found]
        return [(c["verb"], c["name"], c["words"][0].partition("=")[0]) for c in found]

    def statuses(self) -> dict[str, str]:
        names = sorted(path.stem for path in (self.directory.path / "state").iterdir())
        return {name: self.directory.state(name).status for name in names}


@pytest.fixture(scope="module")
def composed() -> dict[str, Any]:
    """What `stage` has composed and checked: to do it for every test again would take seconds."""
    return {}


@pytest.fixture
def stage(home: Path, monkeypatch: pytest.MonkeyPatch, composed: dict[str, Any]) -> Stage:
    compose_options, check = plans._Composer._compose, plans.check_measurement

    def once(self: Any, options: dict[str, Any]) -> Any:
        key = json.dumps([options, os.environ.get("PLATFORM_TRAIN__STEPS")])
        return composed.get(key) or composed.setdefault(key, compose_options(self, options))

    def check_once(config: str, options: dict[str, Any], plugins: Any) -> None:
        if f"{config} {options}" not in composed:
            check(config, options, plugins)
            composed[f"{config} {options}"] = True

    monkeypatch.setattr(plans._Composer, "_compose", once)
    monkeypatch.setattr(plans, "check_measurement", check_once)
    monkeypatch.setattr(attempts, "command", lambda: [sys.executable, "-S", str(STAND_IN)])
    return Stage(home)


@pytest.mark.slow
def test_a_sweep_leaves_its_whole_record(
    stage: Stage, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLATFORM_TRAIN__STEPS", "9")
    monkeypatch.setenv("PLATFORM_DISABLE_PLUGINS", "hf")
    write(set=TINY, seeds=2, evaluate=[{"sampler.steps": [2, 4]}])
    assert stage.play() == 0
    out = stage.directory.path
    assert {path.name for path in out.iterdir()} == {
        *("sweep.yaml", "trials.json", "configs", "trials", "state", "logs", "locks")
    }
    assert (out / "sweep.yaml").read_bytes() == Path("s.yaml").read_bytes()
    index = json.loads((out / "trials.json").read_text())
    assert index["format"] == 1
    assert index["axes"] == {"seed": ["1", "2"]}
    assert index["evaluate"] == [{"sampler.steps": 2}, {"sampler.steps": 4}]
    first = index["trials"][0]
    digest = first.pop("digest")
    assert first == {
        "name": "seed=1",
        "run": "trials/seed=1",
        "labels": {"seed": "1"},
        "options": {**TINY, "seed": 1},
        "evaluate": index["evaluate"],
    }
    config = out / "trials" / "seed=1" / "config.yaml"
    assert yaml.safe_load(config.read_text())["train"]["steps"] == 9
    assert digest == hashlib.sha256(config.read_bytes()).hexdigest()
    state = json.loads((out / "state" / "seed=2.json").read_text())
    assert (state["status"], state["exit_code"], state["attempts"]) == ("finished", 0, 1)
    assert state["started"] < state["ended"]
    assert [done["options"] for done in state["evaluations"]] == index["evaluate"]
    assert (out / "logs" / "seed=1.log").read_text().count("] platform ") == 3
    assert [call[:2] for call in stage.calls()] == [
        (verb, name) for name in ("seed=1", "seed=2") for verb in ("run", "eval", "eval")
    ]
    # The config has all options; what is no option of runs is passed on.
    for seen in stage.environments:
        assert "PLATFORM_TRAIN__STEPS" not in seen
        assert seen["PLATFORM_DISABLE_PLUGINS"] == "hf"
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "2 trials, 0 done, 2 to run"
    assert "[0/2] seed=1 started" in said
    assert said[-1] == "2 finished; record: out"
    assert stage.play() == 0
    assert stage.calls() == []


def test_a_trial_that_fails_is_tried_again_from_where_it_is(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    write(set=TINY, seeds=3)
    script = {"run seed=1": ["fail", "fail", "succeed"], "run seed=2": ["mistake", "succeed"]}
    assert stage.play(script=script) == 1
    assert stage.calls() == [
        ("run", "seed=1", "--config"),
        ("run", "seed=2", "--config"),
        ("run", "seed=3", "--config"),
        ("run", "seed=1", "--resume"),
    ]
    assert stage.statuses() == {"seed=1": "failed", "seed=2": "failed", "seed=3": "finished"}
    state = stage.directory.state("seed=1")
    assert (state.exit_code, state.attempts, state.message) == (1, 2, "ValueError: too large")
    out = capsys.readouterr().out
    assert "[1/3] seed=1 failed (exit 1): ValueError: too large; see out/logs/seed=1.log" in out
    assert "1 finished, 2 failed; record: out" in out
    assert stage.play("--retry", "0") == 0
    assert stage.calls() == [("run", "seed=1", "--resume"), ("run", "seed=2", "--resume")]
    assert set(stage.statuses().values()) == {"finished"}


def test_a_killed_trial_goes_on_in_the_same_call(stage: Stage) -> None:
    write(set=TINY, seeds=1)
    assert stage.play(script={"run seed=1": ["die", "succeed"]}) == 0
    assert stage.calls() == [("run", "seed=1", "--config"), ("run", "seed=1", "--resume")]
    assert stage.directory.state("seed=1").attempts == 2


def test_a_stopped_sweep_lets_its_trials_save_themselves_and_goes_on(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    # Its run may come to an end all the same: then no measurement is begun.
    write(set=TINY, seeds=2, evaluate=[{"sampler.steps": 2}])
    assert stage.play(script={"run seed=1": ["end, and stop the sweep"]}) == 75
    assert stage.calls() == [("run", "seed=1", "--config")]
    assert stage.statuses() == {"seed=1": "interrupted", "seed=2": "waiting"}
    shutil.rmtree("out")
    write(set=TINY, seeds=2)
    assert stage.play(script={"run seed=1": ["stop the sweep"]}) == 75
    assert stage.calls() == [("run", "seed=1", "--config")]
    assert stage.statuses() == {"seed=1": "interrupted", "seed=2": "waiting"}
    assert stage.directory.state("seed=1").message == "saved at step 3"
    assert "1 running trials save themselves" in capsys.readouterr().out
    Path("s.yaml").unlink()
    Path("script.json").write_text("{}")
    assert main(["sweep", "--resume", "out"]) == 0
    assert stage.calls() == [("run", "seed=1", "--resume"), ("run", "seed=2", "--config")]


def test_an_extended_sweep_runs_only_what_is_new_and_keeps_names(stage: Stage) -> None:
    write(set=TINY, seeds=1)
    assert stage.play() == 0
    stage.calls()
    axes = {"train.clip": [1.0, 2.0]}
    write(set=TINY, axes=axes, seeds=1, evaluate=[{"sampler.steps": 2}])
    assert stage.play() == 0
    new = "train.clip=2.0,seed=1"
    assert [call[:2] for call in stage.calls()] == [("eval", "seed=1"), ("run", new), ("eval", new)]
    index = json.loads(stage.directory.index.read_text())
    assert [(trial["name"], trial["labels"]) for trial in index["trials"]] == [
        ("seed=1", {"train.clip": "1.0", "seed": "1"}),
        (new, {"train.clip": "2.0", "seed": "1"}),
    ]
    assert index["trials"][0]["digest"] != index["trials"][1]["digest"]


def test_a_measurement_that_fails_alone_is_made_again(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    write(set=TINY, seeds=1, evaluate=[{"sampler.steps": [2, 4]}])
    script = {"eval seed=1": ["fail", "succeed"]}
    assert stage.play("--retry", "0", script=script) == 1
    assert "1 finished; 1 measurements failed" in capsys.readouterr().out
    done = stage.directory.state("seed=1").evaluations
    assert [(one["status"], one["message"]) for one in done] == [
        ("failed", "ValueError: too large"),
        ("finished", ""),
    ]
    assert [call[0] for call in stage.calls()] == ["run", "eval", "eval"]
    assert stage.play() == 0
    assert [call[0] for call in stage.calls()] == ["eval"]


def test_a_clock_that_is_set_back_starts_no_measurement_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(set=TINY, seeds=1, evaluate=[{"sampler.steps": [2, 4]}])
    times = count(900, -1)
    monkeypatch.setattr(attempts, "_now", lambda: f"2026-01-01T00:00:00.{next(times)}+00:00")
    assert stage.play("--retry", "0", script={"eval seed=1": ["fail"] * 20}) == 1
    assert [call[0] for call in stage.calls()] == ["run", "eval", "eval"]


def test_other_options_under_the_same_name_are_refused(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    write(set=TINY, seeds=1)
    assert stage.play() == 0
    write(set={**TINY, "train.steps": 3}, seeds=1)
    assert stage.play() == 2
    assert "out/trials/seed=1 was made with other options" in capsys.readouterr().err
    assert stage.calls() == [("run", "seed=1", "--config")]


def test_a_directory_of_something_else_is_left_alone(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "out").mkdir()
    (home / "out" / "mine.txt").touch()
    write(set=TINY, seeds=1)
    assert main(["sweep", "s.yaml", "--output", "out"]) == 2
    assert "out exists and is no sweep" in capsys.readouterr().err


def test_what_a_kill_left_before_the_record_began_is_made_anew(stage: Stage) -> None:
    write(set=TINY, seeds=1)
    (stage.directory.trials / "seed=1" / "samples").mkdir(parents=True)
    stage.directory.index.write_text('{"format": 1, "trials": []}')
    assert stage.play() == 0
    assert stage.calls() == [("run", "seed=1", "--config")]


def test_a_trial_that_another_process_has_is_waited_for(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(set=TINY, seeds=2)
    held = stage.directory.lock("seed=1")
    assert held is not None
    assert stage.directory.lock("seed=1") is None
    stage.directory.index.write_text('{"format": 1, "trials": []}')
    begin = Attempt.begin.__func__  # type: ignore[attr-defined]

    def note(cls: type[Attempt], task: Task) -> Attempt | None:
        found: Attempt | None = begin(cls, task)
        if task.name == "seed=2":
            held.close()
        return found

    monkeypatch.setattr(Attempt, "begin", classmethod(note))
    assert stage.play() == 0
    assert [name for _, name, _ in stage.calls()] == ["seed=2", "seed=1"]


def test_a_trial_is_taken_until_its_last_process_has_ended(stage: Stage) -> None:
    write(set=TINY, seeds=1)
    assert stage.play("--retry", "0", script={"run seed=1": ["mistake"]}) == 1
    Path("script.json").write_text('{"run seed=1": ["wait for SIGTERM"]}')
    attempt = Attempt.begin(Task(stage.directory.path, "seed=1"))
    assert attempt is not None
    attempt._lock.close()  # as the death of the sweep does
    assert stage.directory.lock("seed=1") is None
    while not (stage.directory.trials / "seed=1" / "waiting").exists():
        time.sleep(0.01)
    attempt.stop()
    while not attempt.poll():
        time.sleep(0.01)
    free = stage.directory.lock("seed=1")
    assert free is not None
    free.close()


def test_a_trial_said_to_run_by_nobody_was_interrupted(stage: Stage) -> None:
    write(set=TINY, seeds=1)
    assert stage.play() == 0
    state = stage.directory.state("seed=1")
    stage.directory.set_state("seed=1", type(state)(status="running", attempts=1))
    with stage.directory.lock("seed=1"):  # type: ignore[union-attr]
        stage.directory.forget_dead("seed=1")
        assert stage.directory.state("seed=1").status == "running"
    stage.directory.forget_dead("seed=1")
    assert stage.directory.state("seed=1").status == "interrupted"


def test_cores_are_shared_among_trials(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    from platform_core.runtime import accelerator as runtime

    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(runtime, "available_cores", lambda: 8)
    write(set=TINY, seeds=4)
    assert stage.play("--jobs", "4") == 0
    stage.calls()
    assert [seen["OMP_NUM_THREADS"] for seen in stage.environments] == ["2"] * 4


def test_a_trial_whose_sweep_has_died_leaves_at_once() -> None:
    words = [sys.executable, "-m", "platform_sweep.child", "1", "plugins"]
    assert subprocess.run(words, capture_output=True).returncode == 75


# SLURM, with submitit's debug cluster; experiments/slurm/try.py does it for real.


class Instant:
    """submitit's debug cluster, whose jobs run as they are submitted."""

    def __init__(self, folder: Path) -> None:
        import submitit

        self.executor = submitit.AutoExecutor(folder, cluster="debug")
        self.batch = nullcontext
        self.submitted: list[str] = []

    def submit(self, job: TrialJob) -> Any:
        self.submitted.append(job.task.name)
        made = self.executor.submit(job)
        made.result()
        return made


class Listing:
    """What a queue would say."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def live(self, jobs: dict[str, str]) -> set[str]:
        return self.names & set(jobs)


@pytest.fixture
def handlers() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGCONT, signal.SIGUSR2)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # submitit's logs
@pytest.mark.usefixtures("handlers")
def test_jobs_are_submitted_once_and_watched_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    executor, queue = Instant(stage.home / "jobs"), Listing()
    monkeypatch.setattr(
        "platform_sweep.command._launcher",
        lambda *_: Slurm(stage.directory, SlurmOptions(), 1, executor, queue),  # type: ignore[arg-type]
    )
    write(set=TINY, seeds=2, evaluate=[{"sampler.steps": 2}])
    script = {"run seed=1": ["die", "succeed"], "run seed=2": ["mistake", "succeed"]}
    assert stage.play(script=script) == 1
    assert executor.submitted == ["seed=1", "seed=2"]
    assert stage.statuses() == {"seed=1": "finished", "seed=2": "failed"}
    assert "2 submitted, 0 there already" in capsys.readouterr().out
    launcher = Slurm(stage.directory, SlurmOptions(), 1, executor, queue)  # type: ignore[arg-type]
    queue.names = {"seed=2"}
    launcher.start([Task(stage.directory.path, "seed=2")])
    assert launcher.poll()
    assert "scancel" in launcher.stop()
    assert not launcher.poll()
    assert executor.submitted == ["seed=1", "seed=2"]
    queue.names = set()
    assert stage.play() == 0
    assert executor.submitted == ["seed=1", "seed=2", "seed=2"]


@pytest.mark.usefixtures("handlers")
def test_a_job_out_of_time_saves_its_run_and_the_next_one_goes_on(stage: Stage) -> None:
    write(set=TINY, seeds=1)
    assert stage.play("--retry", "0", script={"run seed=1": ["mistake"]}) == 1
    Path("script.json").write_text('{"run seed=1": ["", "wait for SIGTERM", "succeed"]}')
    job = TrialJob(Task(stage.directory.path, "seed=1"))
    job._attempt = job._begin()
    waiting = stage.directory.trials / "seed=1" / "waiting"
    while not waiting.exists():
        time.sleep(0.01)
    next_job = job.checkpoint()
    assert stage.directory.state("seed=1").status == "interrupted"
    assert next_job.result() == "finished"
    assert [words for _, _, words in stage.calls()] == ["--config", "--resume", "--resume"]


def test_what_slurm_lacks_here_is_said(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(UsageError, match="there is no sbatch on this machine"):
        make_executor(home, SlurmOptions(), 1)


@pytest.mark.parametrize("module", ["platform_sweep", "platform_core", "yaml"])
def test_a_trial_executes_no_module_of_the_current_directory(tmp_path, module):
    (tmp_path / f"{module}.py").write_text("raise SystemExit('executed')")
    # The parent is another process, so the child ends before it does anything.
    words = [*attempts.command()[:-1], "1", "plugins"]
    environment = attempts._environment({})
    assert environment["PYTHONSAFEPATH"] == "1"
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (EXIT_INTERRUPTED, "")


def test_all_mistakes_of_a_file_are_told_at_once(tmp_path, capsys):
    """Each in a line of its own."""
    wrong = {
        "base": 3,
        "axes": {"proces": ["duo"], "train.steps": []},
        "seeds": "many",
        "evaluate": [{"sampler.steps": []}],
        "exlude": [],
    }
    file = tmp_path / "study.yaml"
    file.write_text(json.dumps(wrong))
    assert main(["sweep", str(file), "--output", str(tmp_path / "out")]) == 2
    first, *others = capsys.readouterr().err.splitlines()
    assert first == "platform sweep: error: 6 mistakes, so nothing was started:"
    for line, word in zip(
        others, ("exlude", "base is 3", "proces", "train.steps", "seeds", "evaluate 1"), strict=True
    ):
        assert line.startswith(f"  {file}")
        assert word in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("seconds", "said"), [(3.2, "3 s"), (99, "99 s"), (150, "2 min"), (9000, "2.5 h")]
)
def test_a_time_is_told_in_fitting_units(seconds, said):
    assert duration(seconds) == said


def test_a_trial_that_ends_says_what_came_out_and_how_long_the_others_take(tmp_path):
    directory = SweepDirectory(tmp_path)
    tasks = [SimpleNamespace(name=name) for name in ("a", "b")]
    report = _Report(directory, tasks)
    result = {"bits_per_character": 3.25, "seconds": 40.0, "seconds_evaluating": 2.0}
    directory.run("a").path.mkdir(parents=True)
    directory.run("a").result.write_text(json.dumps(result))
    report._states = {"a": State(status="finished"), "b": State()}
    said = report._ended_well("a")
    assert said.startswith("finished, 3.250 bits per character, 42 s, about 0 s left")
    directory.run("a").result.write_text("{")
    assert report._ended_well("a").startswith("finished")
