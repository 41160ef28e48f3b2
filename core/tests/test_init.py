"""`--init RUN`: training from the weights of a trained run."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from platform_core.cli import main
from platform_core.composition.compose import compose
from platform_core.record.directory import RunDirectory
from platform_core.record.files import digest
from platform_core.registry.loading import find_plugins
from platform_core.runtime.state import of_backbone
from platform_core.training.run import Run
from platform_core.training.trainer import Trainer

PLUGINS = find_plugins({"PLATFORM_PLUGINS": "platform_core.testing.stubs"})
SMALL = (  # noqa: SIM905
    "--backbone=small --backbone.hidden_size=16 --process=second"
).split()
NEW = (  # noqa: SIM905
    "--train.steps=2 --train.batch_size=4 --train.evaluate_every=0 --evaluate.sequences=8 "
    "--sample.number=1 --sampler.steps=2 --track.aim=false --train.precision=fp32"
).split()

TEXT = "we the people of these united states"

Platform = Callable[..., str]


@pytest.fixture(scope="module")
def home(stub_parts: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    words = random.Random(0).choices(TEXT.split(), k=2000)
    (folder / "words.txt").write_text(" ".join(words))
    (folder / "letters.txt").write_text("the people " * 500)
    return folder


@pytest.fixture
def platform(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Platform:
    """A command that ends well, or the one line that it ends with."""
    monkeypatch.chdir(home)
    monkeypatch.setenv("PLATFORM_CACHE", str(home / "cache"))

    def run(*words: str, code: int = 0) -> str:
        capsys.readouterr()
        assert main(list(words)) == code, capsys.readouterr().err
        printed = capsys.readouterr().err
        assert not code or printed.count("\n") == 1
        return printed

    return run


@pytest.fixture
def teacher(home: Path, platform: Platform) -> Path:
    """A run of three updates, with checkpoints of the last two."""
    run = home / "teacher"
    if not run.exists():
        data = ["--data.corpus=text", f"--data.path={home / 'words.txt'}", "--data.length=16"]
        every = ["--train.steps=3", "--train.checkpoint_every=1", "--train.learning_rate=0.01"]
        platform("run", *SMALL, *NEW, *data, *every, "--seed=7", "--output=teacher")
    return run


def saved(run: Path, group: str = "model", step: int = 3) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / f"step-{step:07d}" / f"{group}.safetensors")


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(first[n].equal(second[n]) for n in first)


def at_step_0(home: Path, *words: str) -> Trainer:
    composition, _ = compose(
        words,
        PLUGINS,
        prog="x",
        environ={},
    )
    with Run(composition, RunDirectory(home / "probe" / words[-1]), resume=False) as run:
        return run.trainer


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "group", "step"),
    [
        ([], "ema", 3),
        (["--init.weights=raw"], "model", 3),
        (["--init.step=2"], "ema", 2),
    ],
)
def test_a_run_starts_from_the_weights_that_were_asked_for(
    home: Path, teacher: Path, words: list[str], group: str, step: int, platform: Platform
) -> None:
    trainer = at_step_0(home, "--init=teacher", *NEW, *words, f"--seed={step}")
    start = saved(teacher, group, step)
    live = {n: p.detach() for n, p in trainer.objective.model.backbone.named_parameters()}
    assert trainer.step == 0
    assert equal(live, {name: start[name] for name in live})
    assert equal(of_backbone(trainer.ema.shadow), live)
    others = [(g, s) for g in ("ema", "model") for s in (2, 3) if (g, s) != (group, step)]
    assert not any(equal(saved(teacher, *other), start) for other in others)


def test_a_student_has_its_teacher_s_network_data_and_tokenizer_and_the_rest_anew(
    home: Path, teacher: Path, platform: Platform
) -> None:
    platform("run", "--init", "teacher", *NEW, "--objective=nelbo", "--output=student")
    before, after = (
        yaml.safe_load((run / "config.yaml").read_text()) for run in (teacher, home / "student")
    )
    for section in ("process", "schedule", "parameterization", "backbone", "data"):
        assert after[section] == before[section]
    assert before["objective"]["name"] == "only-uniform"
    assert after["objective"]["name"] == "nelbo"
    assert before["train"]["learning_rate"] == 0.01
    assert after["train"]["learning_rate"] == 2e-3
    assert (before["seed"], after["seed"]) == (7, 1)
    assert after["init"] == {"run": str(teacher), "step": 3, "weights": "ema"}
    card = json.loads((home / "student" / "result.json").read_text())["card"]
    file = teacher / "checkpoints" / "step-0000003" / "ema.safetensors"
    assert card["init"] == {**after["init"], "digest": digest(file)}
    assert "init" not in json.loads((teacher / "result.json").read_text())["card"]


@pytest.mark.slow
def test_the_saved_config_repeats_the_run_from_anywhere(
    home: Path, teacher: Path, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform("run", "--init=teacher", *NEW, "--output=first")
    monkeypatch.chdir(home / "teacher")
    platform("run", f"--config={home / 'first' / 'config.yaml'}", f"--output={home / 'second'}")
    assert equal(saved(home / "first", step=2), saved(home / "second", step=2))
    first, second = ((home / run / "config.yaml").read_text() for run in ("first", "second"))
    assert first == second


@pytest.mark.slow
def test_the_characters_of_a_student_s_text_are_those_of_its_teacher(
    home: Path, teacher: Path, platform: Platform
) -> None:
    words = ["--data.path=letters.txt", "--data.length=12"]
    platform("run", "--init=teacher", *NEW, *words, "--output=letters")
    assert (home / "letters" / "tokenizer.json").read_text() == (
        teacher / "tokenizer.json"
    ).read_text()


@pytest.mark.slow
def test_a_resumed_student_needs_its_own_checkpoints_alone(
    home: Path, teacher: Path, platform: Platform
) -> None:
    shutil.copytree(teacher, home / "passing")
    words = ["--init=passing", *NEW, "--train.steps=4"]
    platform("run", *words, "--output=whole")
    platform("run", *words, "--train.steps=2", "--output=parts")
    shutil.rmtree(home / "passing")
    platform("run", "--resume=parts", "--train.steps=4")
    for group in ("model", "ema", "optimizer"):
        assert equal(saved(home / "parts", group, 4), saved(home / "whole", group, 4))
    cards = [
        json.loads((home / run / "result.json").read_text())["card"] for run in ("whole", "parts")
    ]
    assert cards[0]["init"] == cards[1]["init"]
    platform("eval", "parts")
    platform("sample", "parts")


@pytest.mark.slow
def test_a_student_that_was_stopped_before_its_first_checkpoint_starts_again(
    home: Path, teacher: Path, platform: Platform
) -> None:
    platform("run", "--init=teacher", *NEW, "--output=stopped")
    expected = saved(home / "stopped", step=2)
    shutil.rmtree(home / "stopped" / "checkpoints")
    platform("run", "--resume=stopped")
    assert equal(saved(home / "stopped", step=2), expected)


@pytest.mark.parametrize("source", ["config", "environment"])
def test_every_source_may_name_the_run(
    home: Path, teacher: Path, source: str, platform: Platform
) -> None:
    (home / "start.yaml").write_text("init: teacher\n")
    words, environ = (
        (["--config=start.yaml"], {}) if source == "config" else ([], {"PLATFORM_INIT": "teacher"})
    )
    composition, _ = compose(
        words,
        PLUGINS,
        prog="x",
        environ=environ,
    )
    assert composition.init.run == str(teacher)
    assert composition.data.path == str(home / "words.txt")


MISTAKES = {
    "no such run": (["--init=nowhere"], "nowhere does not exist"),
    "no run directory": (["--init=cache"], "is no run directory"),
    "no name": (["--init"], "--init needs a value"),
    "no name to resume": (["--process=second", "--resume"], "--resume needs a value"),
    "no checkpoint": (["--init=empty"], "empty has no checkpoint yet"),
    "no such checkpoint": (["--init=teacher", "--init.step=1"], "it has those of 2, 3"),
    "a step of no run": (["--process=second", "--init.step=1"], "name the run with --init RUN"),
    "another process": (
        ["--init=teacher", "--process=first"],
        "the network was trained with process second, not process first; leave that out",
    ),
    "another network": (
        ["--init=teacher", "--backbone.hidden_size=32"],
        "the network was trained with backbone.hidden_size 16, not 32; leave that out",
    ),
    "damaged": (["--init=damaged"], "step-0000003 cannot be read: ema.safetensors does not match"),
    "changed by hand": (["--init=other"], "is of another architecture"),
    "characters it does not know": (["--init=teacher", "--data.path=strange.txt"], "'!'"),
    "with resume": (["--resume=teacher", "--init=teacher"], "leave one of them out"),
    "with resume, at length": (["--resume=teacher", "--init.run", "teacher"], "leave one of them"),
    "over itself": (
        ["--init=teacher", "--output=teacher", "--overwrite"],
        "is the run that --init starts from",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_line(
    home: Path, teacher: Path, platform: Platform, mistake: str
) -> None:
    (home / "strange.txt").write_text("we the people!" * 99)
    for name in ("empty", "damaged", "other"):
        shutil.rmtree(home / name, ignore_errors=True)
        shutil.copytree(teacher, home / name)
    shutil.rmtree(home / "empty" / "checkpoints")
    file = home / "damaged" / "checkpoints" / "step-0000003" / "ema.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    config = home / "other" / "config.yaml"
    config.write_text(config.read_text().replace("hidden_size: 16", "hidden_size: 32"))
    words, said = MISTAKES[mistake]
    before = digest(teacher / "result.json")
    output = [] if any("resume" in w or "output" in w for w in words) else ["--output=mistake"]
    assert said in platform("run", *words, *output, code=2)
    assert not (home / "mistake").exists()
    assert digest(teacher / "result.json") == before


def test_resume_and_eval_do_not_take_another_start(
    home: Path, teacher: Path, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "the network was trained with init.run None, not teacher"
    assert said in platform("eval", "teacher", "--init=teacher", code=2)
    monkeypatch.setenv("PLATFORM_INIT", "teacher")
    assert said in platform("run", "--resume=teacher", code=2)
