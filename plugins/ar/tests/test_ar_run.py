"""Process ar as a user runs it: composed by one word, refused where it makes no sense."""

import json
import random
from pathlib import Path

import pytest

from platform_core.cli import main
from platform_core.composition.compose import Composition, compose
from platform_core.errors import IncompatibleError
from platform_core.registry.loading import find_plugins

TEXT = "we the people of these united states in order to form a more perfect union"

SMALL = (  # noqa: SIM905
    "run --process=ar --backbone=small --backbone.hidden_size=16 "
    "--data.corpus=text --data.length=16 --train.steps=4 --train.batch_size=4 "
    "--train.warmup_steps=1 --train.evaluate_every=2 --evaluate.on_the_way=8 --sample.number=2 "
    "--track.aim=false"
).split()


def composed(*words: str) -> Composition:
    plugins = find_plugins({"PLATFORM_PLUGINS": "platform_core.testing.stubs"})
    return compose(("--backbone=small", *words), plugins, prog="platform run", environ={})[0]


@pytest.mark.parametrize("schedule", ["log-linear", "cosine", "polynomial"])
def test_no_schedule_is_refused_because_none_is_read(schedule: str) -> None:
    composed("--process=ar", f"--schedule={schedule}")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--process=ar --objective=nelbo", "objective nelbo needs a diffusion process, but proc"),
        ("--process=ar --sampler=ancestral", "sampler ancestral needs a diffusion process, but p"),
        ("--process=ar --parameterization=mean", "parameterization mean needs a diffusion proc"),
        ("--process=uniform --objective=next-token", "objective next-token needs an ar process"),
        ("--process=absorbing --sampler=left-to-right", "sampler left-to-right needs an ar proce"),
        ("--process=uniform --parameterization=next-token", "needs an ar process, but process is"),
    ],
)
def test_parts_of_diffusion_and_of_autoregression_do_not_mix(words: str, message: str) -> None:
    with pytest.raises(IncompatibleError, match=message) as error:
        composed(*words.split())
    assert ("choose process ar," if "needs an ar" in message else "absorbing") in str(error.value)


@pytest.fixture
def small(stub_parts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    chosen = random.Random(0).choices(TEXT.split(), k=3000)
    (tmp_path / "words.txt").write_text(" ".join(chosen))
    monkeypatch.setenv("PLATFORM_CACHE", str(tmp_path / "cache"))
    return [*SMALL, f"--data.path={tmp_path / 'words.txt'}", f"--output={tmp_path / 'run'}"]


@pytest.mark.slow
def test_a_run_trains_evaluates_and_continues_a_prompt(
    small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(small) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert 0 < result["bits_per_token"] < 6
    assert result["card"]["noise_levels_per_sequence"] == 0
    assert result["card"]["sampler"]["nfe"] == 16
    assert main(["eval", str(tmp_path / "run"), "--evaluate.protocol=published", "--json"]) == 0
    capsys.readouterr()
    longer = ["--sample.prompt=we the", "--sample.length=40", "--sampler.top_k=3"]
    assert main(["sample", str(tmp_path / "run"), *longer, "--format=jsonl"]) == 0
    printed = capsys.readouterr()
    lines = [json.loads(line) for line in printed.out.splitlines()]
    assert [len(line["tokens"]) for line in lines] == [40, 40]
    assert all(line["text"].startswith("we the") for line in lines)
    assert "34 network evaluations" in printed.err


def test_a_template_with_text_after_a_blank_is_refused_before_training(
    small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*small, "--sample.template=we_the"]) == 2
    error = capsys.readouterr().err
    assert "the template has text after a blank" in error
    assert "such as absorbing" in error
    assert not (tmp_path / "run").exists()


def test_a_template_that_ends_in_blanks_is_a_beginning(small: list[str], tmp_path: Path) -> None:
    assert main([*small, "--sample.template=we __", "--train.steps=1"]) == 0
    first, second = (tmp_path / "run" / "samples" / "final.txt").read_text().split("\n\n---\n\n")
    assert first.startswith("we ")
    assert second.startswith("we ")
