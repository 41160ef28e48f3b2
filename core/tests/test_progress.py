"""What is said while work goes on, and commands that can be pasted."""

import io
import json
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from platform_core.cli import main
from platform_core.record.progress import command, shown, working


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def open_terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Terminal]:
    """Makes standard error a terminal; to be called in the test, after pytest's own capture."""

    def opened() -> Terminal:
        found = Terminal()
        monkeypatch.setattr(sys, "stderr", found)
        return found

    return opened


def test_a_terminal_is_told_what_is_being_done_and_then_cleared(open_terminal):
    terminal = open_terminal()
    working("starting")
    working("")
    assert terminal.getvalue() == "\r\033[Kstarting ...\r\033[K"


def test_a_file_is_told_nothing_on_the_way(capsys):
    working("starting")
    assert list(shown([1, 2], "evaluating", unit="batch")) == [1, 2]
    assert capsys.readouterr() == ("", "")


def test_short_work_shows_no_bar_and_long_work_does(open_terminal, monkeypatch):
    terminal = open_terminal()
    assert list(shown(range(3), "evaluating", unit="batch")) == [0, 1, 2]
    assert "evaluating" not in terminal.getvalue()
    monkeypatch.setattr("platform_core.record.progress.DELAY", 1e-9)
    for _ in shown(range(3), "evaluating", unit="batch"):
        time.sleep(0.12)  # longer than a bar waits before it is drawn again
    assert "evaluating" in terminal.getvalue()


def test_a_command_can_be_pasted(monkeypatch):
    assert command("sample", Path("my runs/a'b")) == "platform sample 'my runs/a'\"'\"'b'"
    monkeypatch.setenv("PLATFORM_PLUGINS", "/a b/mine.py,other")
    words = shlex.split(command("eval", "runs/x"))
    assert words == ["platform", "-p", "/a b/mine.py", "-p", "other", "eval", "runs/x"]


def test_a_mistake_takes_back_what_was_said(open_terminal):
    terminal = open_terminal()
    assert main(["run", "--process=dou"]) == 2
    last = terminal.getvalue().split("\033[K")[-1]
    assert last.startswith("platform run: error: unknown process 'dou'")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_the_letters_shows_others(encoding, monkeypatch):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, errors="strict")
    monkeypatch.setattr(sys, "stdout", stream)
    assert main(["--version"]) == 0
    print("a \N{EN DASH} b\N{HORIZONTAL ELLIPSIS} \N{SNOWMAN}", flush=True)
    assert raw.getvalue().decode(encoding).endswith("a - b... ?\n")


def test_an_error_on_a_sweep_names_one_of_its_runs(tmp_path, capsys):
    config = tmp_path / "study/trials/first/config.yaml"
    config.parent.mkdir(parents=True)
    config.touch()
    (tmp_path / "study/sweep.yaml").touch()
    assert main(["eval", str(tmp_path / "study")]) == 2
    said = capsys.readouterr().err
    assert f"study is a sweep of 1 runs; name one of its runs: {config.parent}" in said
    assert said.count("\n") == 1


def test_a_finished_run_says_so_at_once(tmp_path, capsys, monkeypatch):
    run = tmp_path / "a run"
    for name, content in {
        "config.yaml": "train:\n  steps: 7\n",
        "result.json": json.dumps({"steps": 7}),
        "samples/final.txt": "text",
        "tokenizer.json": "{}",
        "checkpoints/step-0000007/state.json": "{}",
    }.items():
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(content)
    monkeypatch.setattr("platform_core.cli.run.compose_saved", None)  # imports torch
    for name in ("PLATFORM_PLUGINS", "PLATFORM_PROCESS"):
        monkeypatch.delenv(name, raising=False)
    assert main(["run", "--resume", str(run)]) == 0
    said = capsys.readouterr().out
    assert f"{run} is finished: all of its 7 steps are made and evaluated" in said
    assert f"platform run --resume '{run}' --train.steps 14" in said
