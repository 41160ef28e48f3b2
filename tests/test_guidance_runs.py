"""Guidance by trained runs, which are named by their paths, from the command line."""

import contextlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from platform_core.cli import main
from platform_core.component import Component
from platform_core.data.corpus import LabelledCorpus
from platform_core.evaluation.trained import TrainedRun
from platform_core.hookspecs import hookimpl

SMALL = (  # noqa: SIM905
    "run --backbone.hidden_size=16 --backbone.num_blocks=1 --backbone.num_heads=2 --seed=1 "
    "--data.length=12 --train.batch_size=8 --train.steps=2 --train.warmup_steps=1 "
    "--train.evaluate_every=0 --evaluate.sequences=4 --sample.number=0 --track.to=none "
    "--train.precision=fp32"
).split()
LABELLED = ["--data.label=kind", "--process=mdlm"]
RUNS = {
    "mdlm": ["--process=mdlm"],
    "duo": ["--process=duo"],
    "ar": ["--process=ar"],
    "labelled": [*LABELLED, "--train.label_dropout=0.2"],
    "always": [*LABELLED, "--train.label_dropout=0", "--sample.label=sea"],
}
TEXTS = {"sea": "the sea is deep and blue ", "land": "a hill of dry grass and stone "}


class Kinds(LabelledCorpus):
    """Texts of two kinds."""

    splits = ("train", "valid", "test")
    kinds = ("kind",)

    def documents(self, split: str) -> Iterator[str]:
        return iter([text * 20 for text in TEXTS.values()] * 6)

    def labels(self, split: str, kind: str) -> Iterator[str]:
        return iter([*TEXTS] * 6)

    def fingerprint(self) -> str:
        return "kinds"


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("runs")
    (home / "other.txt").write_text("ZYXWV QPONM " * 200)
    plugin: Any = ModuleType("kinds_plugin")
    plugin.open_kinds = lambda options: Kinds()
    component = Component("kinds", "kinds_plugin:open_kinds")
    plugin.platform_corpora = hookimpl(specname="platform_corpora")(lambda: [component])
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        patch.setenv("PLATFORM_CACHE", str(home / "cache"))
        patch.setitem(sys.modules, "kinds_plugin", plugin)
        patch.setenv("PLATFORM_PLUGINS", "kinds_plugin")
        for name, words in RUNS.items():
            corpus = "--data.corpus=kinds"
            assert main([*SMALL, corpus, *words, f"--output={home / name}"]) == 0
        other = ["--data.corpus=text", f"--data.path={home / 'other.txt'}", "--process=ar"]
        assert main([*SMALL, *other, f"--output={home / 'other'}"]) == 0
        yield home


OF_LABELLED = "--sampler.reward.run={}/labelled"
SEA = "--sampler.reward.label=sea"
BEST = ("--sampler=best-of", "--sampler.n=2", "--sampler.inner.steps=6")
LIKELIHOOD = ("--sampler=best-of", "--sampler.reward=likelihood")
LABEL = ("--sampler=d-cbg", "--sampler.steps=6", "--sampler.reward=label")


def said(runs: Path, run: str, *words: str) -> tuple[int, str]:
    """The exit code of `platform sample`, and what it says on standard error."""
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        words = tuple(word.format(runs) for word in words)
        code = main(["sample", str(runs / run), "--sample.number=2", *words])
    return code, errors.getvalue()


@pytest.mark.parametrize(
    "words",
    [
        [*BEST, "--sampler.reward=matches", "--sampler.reward.pattern=a+|the"],
        [*BEST, "--sampler.reward=likelihood", OF_LABELLED, SEA],
        ["--sampler=particles", "--sampler.every=2", *BEST[2:], "--sampler.reward=label",
         OF_LABELLED, SEA],
        [*LABEL, OF_LABELLED, SEA],
    ],
)  # fmt: skip
def test_samplers_take_rewards_by_name_and_runs_by_path(runs: Path, words: list[str]) -> None:
    code, found = said(runs, "mdlm", *words)
    assert code == 0, found
    assert "network evaluations each" in found


@pytest.mark.parametrize(
    ("run", "words", "expected"),
    [
        ("mdlm", [*LIKELIHOOD], "missing: --sampler.reward.run"),
        ("mdlm", [*LIKELIHOOD, "--sampler.reward.run=nowhere"], "nowhere does not exist"),
        ("mdlm", [*LIKELIHOOD, "--sampler.reward.run={}/other"], "has another tokenizer"),
        ("mdlm", [*LIKELIHOOD, "--sampler.reward.run={}/mdlm", SEA], "was trained without labels;"),
        ("mdlm", [*LIKELIHOOD, OF_LABELLED, "--sampler.n=0"], "n is 0"),
        ("mdlm", [*LABEL, OF_LABELLED, "--sampler.reward.label=see"], "did you mean sea?"),
        ("mdlm", [*LABEL, "--sampler.reward.run={}/mdlm", SEA], "without labels, so it is no"),
        ("mdlm", [*LABEL, "--sampler.reward.run={}/always", SEA], "never learned to write without"),
        ("mdlm", ["--sampler=d-cbg", *LIKELIHOOD[1:], OF_LABELLED], "choose a graded one, such as"),
        ("duo", [*LABEL, OF_LABELLED, SEA], "has other noise than this run"),
        ("mdlm", ["--sampler=particles", "--sampler.inner=first-hitting"], "inner is FirstHitting"),
        ("ar", ["--sampler=best-of"], "sampler ancestral needs a diffusion process"),
    ],
)
def test_mistakes_are_one_line(runs: Path, run: str, words: list[str], expected: str) -> None:
    code, found = said(runs, run, *words)
    assert code == 2
    errors = [line for line in found.splitlines() if not line.startswith("note:")]
    assert len(errors) == 1
    assert expected in errors[0]


def test_left_to_right_and_labels_go_with_rewards(runs: Path) -> None:
    words = (*LIKELIHOOD, "--sampler.inner=left-to-right", "--sampler.n=2", OF_LABELLED)
    code, found = said(runs, "ar", *words)
    assert code == 0, found
    assert "40 network evaluations each" in found  # twice 12 tokens and 8 noise levels


def test_a_config_keeps_the_reward_with_its_absolute_path(runs: Path, monkeypatch) -> None:
    monkeypatch.chdir(runs)
    run = TrainedRun.open("mdlm", [*LIKELIHOOD, "--sampler.reward.run=ar"])
    options = run.composition.options("sampler")["reward"]
    assert options == {"name": "likelihood", "run": str(runs / "ar"), "label": None, "draws": 8}
    assert run.composition.provenance()["guidance"]["parts"] == [
        "sampler best-of",
        "reward likelihood",
    ]
