"""A run watched, talked to and shown in the terminal: `sample --watch`, `chat`, `show`."""

import contextlib
import io
import json
import os
import pty
import shutil
import sys
from contextlib import closing

import pytest
import torch

from platform_core.cli import main, view
from platform_core.cli.show import sparkline
from platform_core.composition.compose import compose
from platform_core.data.tokenizer import CharacterTokenizer
from platform_core.evaluation.trained import TrainedRun
from platform_core.record.directory import RunDirectory
from platform_core.record.files import write_json, write_text
from platform_core.record.metrics import MetricsLog
from platform_core.registry.loading import find_plugins
from platform_core.runtime.checkpoint import Checkpoint, Checkpoints
from platform_core.testing.records import result

WORDS = [
    *("--process=first", "--data.corpus=text", "--data.length=12", "--train.steps=4"),
    *("--sampler.steps=4", "--sample.number=2"),
]
LETTERS = CharacterTokenizer(" abc")


@pytest.fixture(scope="module")
def run(stub_parts, tmp_path_factory):
    """A run as it lies on disk after four steps, with random weights."""
    directory = RunDirectory(tmp_path_factory.mktemp("watch") / "run")
    composition, _ = compose(WORDS, find_plugins(), prog="test", environ={})
    torch.manual_seed(0)
    network = composition.build(LETTERS.vocab_size).model.backbone.state_dict()
    state = Checkpoint({"model": network, "ema": network}, {"step": 4})
    Checkpoints(directory.checkpoints, keep=1).save(4, state)
    write_json(directory.tokenizer, LETTERS.to_dict())
    write_text(directory.config, composition.config)
    directory.samples.mkdir()
    write_text(directory.samples / "final.txt", "a sample of it")
    with closing(MetricsLog(directory.metrics)) as log:
        for step in range(1, 5):
            log.log({"loss": 4 - step / 2}, step=step, subset="train")
            log.log({"bits_per_character": 8 - step}, step=step, subset="validation")
    write_json(directory.environment, {"commit": "a" * 40 + "-dirty", "device": "cpu"})
    return directory.path


def said(capsys, *words, code=0):
    capsys.readouterr()
    assert main([*map(str, words)]) == code
    return capsys.readouterr()


def test_watching_changes_no_text_and_shows_each_call_as_a_line_without_a_terminal(
    run, capsys, tmp_path
):
    alone = said(capsys, "sample", run).out
    page = tmp_path / "way.html"
    seen = said(capsys, "sample", run, "--watch", f"--trajectory={page}", "--fps=3")
    assert seen.out == alone
    *frames, summary = seen.err.splitlines()
    assert summary.startswith("2 samples, ema weights of step 4")
    assert frames[0].split() == ["0", "0%", "▒" * 12]
    assert "100%" in frames[-1]
    assert '"fps":3.0' in page.read_text()
    assert len(json.loads(page.read_text().split('json">')[1].split("</script>")[0])["frames"]) == (
        len(frames)
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--watch", "--fps=0"], "--fps is 0; it must be at least 0.01 and at most 1000"),
        (["--trajectory=way.txt"], "end its name in .json, .png, .svg, .pdf, .html, .gif"),
    ],
)
def test_what_cannot_be_watched_or_written_is_one_line(run, capsys, words, message):
    error = said(capsys, "sample", run, *words, code=2).err
    assert message in error
    assert error.count("\n") == 1


HIDE, SHOW, UP = "\x1b[?25l", "\x1b[?25h", "\x1b[1A\x1b[2K"


def watched(monkeypatch, *, stopped=False, **variables):
    """What is written to a terminal of 80 columns on which a text of two tokens is watched."""
    above, below = pty.openpty()
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm", "COLUMNS": "80", "LINES": "24", **variables}.items():
        monkeypatch.setenv(name, value)
    mask, b, a = LETTERS.vocab_size, *map(int, LETTERS.encode("ba"))
    with open(below, "w", encoding="utf-8") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        with (
            contextlib.suppress(KeyboardInterrupt),
            view.View(LETTERS, 2, fps=1000, keep=True) as seen,
        ):
            for tokens, alpha in ([mask] * 2, 0.0), ([a, b, a], 0.2), ([b, mask], 0.5):
                seen.see(tokens, alpha)
            if stopped:
                raise KeyboardInterrupt
            seen.end([b, a])
    text = b""
    with contextlib.suppress(OSError):  # which ends what a terminal was sent
        while chunk := os.read(above, 2**16):
            text += chunk
    os.close(above)
    return text.decode()


def test_on_a_terminal_the_text_stays_in_its_place_and_what_is_new_is_in_colour(monkeypatch):
    text = watched(monkeypatch)
    assert "\x1b[30;43mb\x1b[0m\x1b[2m▒" in text
    assert "b\x1b[30;43ma\x1b[0m" in text
    assert text.count("step 1 ") == 1
    assert text.index(HIDE) < text.rindex(SHOW)
    assert not text.endswith(UP)


def test_ctrl_c_leaves_nothing_on_the_terminal(monkeypatch):
    text = watched(monkeypatch, stopped=True)
    assert text.endswith(UP * 2)
    assert text.index(HIDE) < text.rindex(SHOW)


@pytest.mark.parametrize("variable", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_terminal_without_colour_or_without_a_way_back_gets_plain_lines(monkeypatch, variable):
    lines = watched(monkeypatch, **variable).splitlines()
    assert lines == ["   0   0%  ▒▒", "   1  50%  b▒", "   2 100%  ba"]


@pytest.mark.slow
def test_a_chat_answers_line_by_line_and_goes_on_after_mistakes(run, capsys, monkeypatch):
    typed = [
        *("a b", "/seed 1", "/steps 2", "a b", "/again", "c__b", "/stesp 3", "/steps many"),
        *("/steps", "/sampler nothing", "/prompt a", "a " * 9, "/reset", "/help", "/quit", "never"),
    ]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(typed)))
    talk = said(capsys, "chat", run, code=2)
    first, then = TrainedRun.open(run), TrainedRun.open(run, ["--sampler.steps=2"])
    texts = [
        *first.sample(1, prompt="a b", seed=1).texts,
        *then.sample(1, prompt="a b", seed=1).texts,
        *then.sample(1, prompt="a b", seed=2).texts,
        *then.sample(1, template="c__b", seed=3).texts,
    ]
    assert talk.out.startswith("\n".join([*texts, "  a text "]))
    assert "seed is 1\nsampler.steps is 2\n" in talk.err
    errors = [line for line in talk.err.splitlines() if line.startswith("error: ")]
    assert [error.partition(";")[0] for error in errors] == [
        "error: unknown command /stesp",
        "error: sampler.steps is many",
        "error: /steps needs a value",
        "error: unknown sampler 'nothing'",
        "error: unknown command /prompt",
        "error: the prompt has 18 tokens, but samples have 12",
    ]
    page = talk.out[talk.out.index("  a text") :].splitlines()
    assert max(map(len, page)) < 80
    assert len(page) < 24
    assert "/steps 4 " in talk.out


def test_a_chat_that_was_all_right_ends_with_0(run, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    assert "seed 7, " in said(capsys, "chat", run, "--seed=7").err


def test_a_run_is_shown_on_one_screen_before_and_after_its_end(run, capsys, tmp_path):
    directory = RunDirectory(shutil.copytree(run, tmp_path / "run"))
    unfinished = said(capsys, "show", directory.path).out
    directory.result.write_text(json.dumps({**result(2.0), "unigram_bits": 4.5}))
    screen = said(capsys, "show", directory.path).out
    assert "4 of 4 steps so far" in unfinished
    for words in (
        *("first with small, 800 steps", "1,000,000 weights", "100 kinds of tokens"),
        *("validation bits/character      7 █▆▃▁ 4 at step 4", "training loss"),
        *("at most 5.771 ± 0.029, perplexity 7.389", "unigram 4.500", "    a sample of it"),
        *("commit aaaaaaaaaa-dirty", "on cpu", "trained in 100 s", "--train.steps 1600"),
    ):
        assert words in screen
    assert max(len(line) for line in screen.splitlines() if str(directory.path) not in line) < 80
    assert screen.count("\n") <= 24
    assert "stubs" in screen.splitlines()[-1]
    directory.result.write_text(json.dumps({**result(2.0), "parameters": "many"}))
    assert "is damaged: ValueError: " in said(capsys, "show", directory.path, code=2).err
    directory.config.write_text("process: {name: x}\n")
    assert "is damaged" in said(capsys, "show", directory.path, code=2).err


def test_a_curve_is_as_high_as_its_values():
    assert sparkline([1, 1]) == "▁▁"
    assert sparkline(range(8)) == "▁▂▃▄▅▆▇█"
    assert len(sparkline([0.0] * 500)) == 20
