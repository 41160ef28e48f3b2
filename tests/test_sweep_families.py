"""Sweeps over the families of several packages."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forked
import pytest
import yaml

from platform_core.cli import main
from platform_core.record.sweep import SweepDirectory

TINY = {
    "backbone.hidden_size": 16,
    "backbone.num_blocks": 1,
    "backbone.num_heads": 2,
    "track.aim": False,
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(**content: Any) -> Path:
    path = Path("s.yaml")
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def test_all_mistakes_are_shown_at_once_and_nothing_is_written(
    capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    write(
        set=TINY,
        axes={
            "process": ["duo", "dou"],
            "x": [{"train.clip": 1}, {"backbone.num_heads": 3}, {"train.setps": 1}],
        },
        seeds=2,
        evaluate=[{"sampler.stpes": 4}, {"jsno": True}],
    )
    assert main(["sweep", "s.yaml", "--output", "out"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("platform sweep: error: 12 of 12 trials cannot run, so nothing was")
    assert said.count("unknown process 'dou'; did you mean duo?") == 1
    assert "process=dou,x=clip=1,seed=1 process=dou,x=clip=1,seed=2 " in said
    assert "and 3 more" in said
    assert said.count("hidden_size 16") == 1
    assert said.count("unknown option train.setps; did you mean train.steps?") == 1
    assert (
        "evaluate {'sampler.stpes': 4}: unknown option sampler.stpes of sampler ancestral" in said
    )
    assert said.count("evaluate {'jsno': True}: unknown option --jsno; did you mean --json?") == 1
    assert [path.name for path in home.iterdir()] == ["s.yaml"]


@pytest.fixture
def real(home: Path) -> Callable[..., list[str]]:
    chosen = random.Random(0).choices(
        ["we", "the", "people", "of", "these", "united", "states"], k=3000
    )
    (home / "words.txt").write_text(" ".join(chosen))
    more = {
        **TINY,
        **{"backbone.dropout": 0.1, "data.corpus": "text", "data.path": "words.txt"},
        **{"data.length": 16, "train.steps": 200, "train.batch_size": 4, "train.log_every": 50},
        **{"train.evaluate_every": 0, "train.checkpoint_every": 10, "evaluate.sequences": 32},
        **{"sample.number": 1, "sampler.steps": 3},
    }
    write(set=more, axes={"process": ["duo", "mdlm"]})
    return lambda out: [
        sys.executable,
        "-m",
        "platform_core.cli",
        "sweep",
        "s.yaml",
        "--output",
        out,
    ]


def numbers(out: Path) -> dict[str, dict[str, Any]]:
    machine = {"seconds", "seconds_evaluating", "peak_rss_bytes", "card"}
    return {
        path.parent.name: {
            key: value for key, value in json.loads(path.read_text()).items() if key not in machine
        }
        for path in sorted((out / "trials").glob("*/result.json"))
    }


def wait_for(happened: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 240
    while not happened():
        assert process.poll() is None, "the sweep ended before"
        assert time.monotonic() < deadline
        time.sleep(0.05)


def pids(text: str) -> list[int]:
    """Processes of ours whose command line has the text."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if text in words and "sweep.child" in words:
            found.append(int(folder.name))
    return found


@pytest.mark.slow
def test_a_sweep_killed_with_its_trial_ends_as_an_undisturbed_one(
    home: Path, real: Callable[[str], list[str]]
) -> None:
    """One trial is killed, then the sweep is, whose other trial saves itself."""
    environment = {**os.environ, "PLATFORM_CACHE": str(home / "cache")}

    def ended(out: str) -> int:
        # Only what is killed has to be started as a user starts it.
        words = [forked.python(), *real(out)[1:]]
        return subprocess.run(words, env=environment, timeout=240).returncode

    assert ended("whole") == 0
    process = subprocess.Popen(real("killed"), env=environment)
    sweep = SweepDirectory(home / "killed")

    def checkpoints(name: str) -> bool:
        return bool(sweep.run(name).steps())

    wait_for(lambda: checkpoints("process=duo"), process)
    (first,) = pids("killed/trials/process=duo")
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: checkpoints("process=mdlm"), process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 60
    while pids("killed/trials/"):
        assert time.monotonic() < deadline, "a trial outlived its sweep"
        time.sleep(0.05)
    for name in ("process=duo", "process=mdlm"):
        assert not sweep.has_result(name), "it ended before it could be killed"
    assert "saved at step " in sweep.log("process=mdlm").read_text()
    assert ended("killed") == 0
    assert sweep.state("process=duo").attempts == sweep.state("process=mdlm").attempts == 2
    assert numbers(home / "killed") == numbers(home / "whole")
    assert len(numbers(home / "whole")) == 2
