"""What is said while work goes on, and commands that can be pasted."""

import io
import json
import os
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from platform_core.cli import main
from platform_core.cli.terminal import without_failing
from platform_core.errors import UsageError
from platform_core.record.directory import RunDirectory
from platform_core.record.files import digest
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
    monkeypatch.setenv("PLATFORM_DISABLE_PLUGINS", "aim")
    plugins = ["-p", "/a b/mine.py", "-p", "other", "-p", "no:aim"]
    assert shlex.split(command("eval", "runs/x")) == ["platform", *plugins, "eval", "runs/x"]


def test_a_mistake_takes_back_what_was_said(open_terminal):
    terminal = open_terminal()
    assert main(["run", "--process=dou"]) == 2
    last = terminal.getvalue().split("\033[K")[-1]
    assert last.startswith("platform run: error: unknown process 'dou'")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_output_never_fails_for_want_of_a_character(encoding, monkeypatch):
    said = (
        "1\N{EN DASH}2 \N{PLUS-MINUS SIGN} 3\N{HORIZONTAL ELLIPSIS} \xe9 \N{PARTIAL DIFFERENTIAL}"
    )
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", out)
    without_failing()
    print(said, end="", flush=True)
    shown = {
        "ascii": r"1-2 +- 3... \xe9 \u2202",
        "latin-1": "1-2 \xb1 3... \xe9 \\u2202",
        "utf-8": said,
    }
    assert out.buffer.getvalue().decode(encoding) == shown[encoding]


def test_a_directory_of_a_sweep_is_called_one_and_its_trials_are_named(tmp_path):
    (tmp_path / "trials.json").write_text("{}")
    with pytest.raises(UsageError, match="directory of a sweep; none of its trials has begun"):
        RunDirectory.existing(tmp_path)
    for name in ("one", "two"):
        (tmp_path / "trials" / name).mkdir(parents=True)
        (tmp_path / "trials" / name / "config.yaml").write_text("")
    with pytest.raises(UsageError, match=r"trials/NAME: one, two$"):
        RunDirectory.existing(tmp_path)


@pytest.fixture
def finished(tmp_path, monkeypatch) -> Path:
    """A finished run, where composing it would fail."""
    run = tmp_path / "a run"
    weights = run / "checkpoints/step-0000007/model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    for name, content in {
        "config.yaml": "train:\n  steps: 7\n",
        "result.json": json.dumps({"steps": 7}),
        "samples/final.txt": "text",
        "tokenizer.json": "{}",
        "checkpoints/step-0000007/state.json": json.dumps(
            {"step": 7, "files": {weights.name: digest(weights)}}
        ),
    }.items():
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(content)
    for name in [name for name in os.environ if name.startswith("PLATFORM_")]:
        monkeypatch.delenv(name)
    return run


class ComposedError(Exception):
    """Torch would be imported now."""


def test_a_finished_run_says_so_at_once(finished, capsys, monkeypatch):
    monkeypatch.setattr("platform_core.cli.run.compose_saved", None)
    assert main(["run", "--resume", str(finished)]) == 0
    said = capsys.readouterr().out
    assert f"{finished} is finished: all of its 7 steps are made and evaluated" in said
    assert f"platform run --resume '{finished}' --train.steps 14" in said


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.yaml", "train:\n  steps: 8\n"),
        ("result.json", '{"steps": 3}'),
        ("result.json", '{"step'),
        ("result.json", "{}"),
        ("result.json", '{"steps": null}'),
        ("checkpoints/step-0000007/model.safetensors", "damaged"),
        ("checkpoints/step-0000007/state.json", "[]"),
    ],
)
def test_a_run_that_has_more_to_do_or_is_damaged_goes_on(finished, name, content, monkeypatch):
    def compose(*_: object, **__: object) -> None:
        raise ComposedError

    monkeypatch.setattr("platform_core.cli.run.compose_saved", compose)
    (finished / name).write_text(content)
    with pytest.raises(ComposedError):
        main(["run", "--resume", str(finished)])
