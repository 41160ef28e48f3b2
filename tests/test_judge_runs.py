"""An autoregressive run judges the samples of a masked diffusion."""

import contextlib
import io
import json
import random
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from tiny_judge import write_judge

from platform_core.cli import main
from platform_core.draws import Draws
from platform_core.errors import UsageError
from platform_core.evaluation.trained import TrainedRun
from platform_core.record.cards import Record
from platform_core.record.directory import RunDirectory
from platform_core.registry.loading import load_plugins
from platform_core.testing.metrics import require_whole
from platform_judge import generative
from platform_judge.generative import judge_texts, written
from platform_judge.judge import Judge, Reading
from platform_judge.metrics import METRICS
from platform_judge.opening import open_judge

WORDS = "we the people of these united states in order to form a more perfect union"
LENGTH = 16


def opened(source: object, *, plugins: object = None) -> Judge:
    return open_judge(str(source), Accelerator(cpu=True), plugins or load_plugins({}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_judge(tmp_path_factory.mktemp("judges") / "tiny")


SMALL = (  # noqa: SIM905
    "run --backbone.hidden_size=16 --backbone.num_blocks=1 --backbone.num_heads=2 --seed=1 "
    "--data.corpus=text --train.batch_size=16 --train.warmup_steps=2 --train.learning_rate=0.02 "
    "--train.evaluate_every=0 --evaluate.on_the_way=8 --sample.number=2 --track.aim=false "
    "--train.precision=fp32 --train.checkpoint_every=0 --train.log_every=50"
).split()


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A trained autoregressive run, and a masked diffusion that has learned nothing."""
    home = tmp_path_factory.mktemp("runs")
    (home / "words.txt").write_text(" ".join(random.Random(0).choices(WORDS.split(), k=3000)))
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        patch.setenv("PLATFORM_CACHE", str(home / "cache"))
        small = [*SMALL, f"--data.path={home / 'words.txt'}", f"--data.length={LENGTH}"]
        ar = [*small, "--process=ar", "--train.steps=40", f"--output={home / 'ar'}"]
        assert main(ar) == 0
        mdlm = ["--process=mdlm", "--train.steps=1", "--sampler.steps=4"]
        assert main([*small, *mdlm, f"--output={home / 'mdlm'}"]) == 0
        yield home


@pytest.mark.slow
def test_a_run_judges_as_its_own_exact_bound_does(runs):
    plugins, accelerator = load_plugins({}), Accelerator(cpu=True)
    directory = RunDirectory(runs / "ar")
    run = TrainedRun.open(directory.path, accelerator=accelerator)
    built, tokenizer = run.built, run.tokenizer
    split = run.data(("validation",)).split("validation")
    batch = split.batch(range(7))
    ids = batch.x0
    assert (ids == tokenizer.eos_id).sum() == 0
    draws = Draws.derive(9, step=0, first=0, total=7)
    with torch.no_grad():
        exact = built.objective.bound(batch, draws).per_token[:, 1:]
    judge = opened(runs / "ar", plugins=plugins)
    found = judge_texts(judge, ids.tolist(), tokenizer, length=LENGTH, batch_size=3)
    assert found.likelihood.nats_per_token == pytest.approx(float(exact.mean()), rel=1e-5)
    assert found.likelihood.tokens == found.likelihood.characters == 7 * (LENGTH - 1)
    assert found.features.shape == (7, 16)
    assert judge.identity.kind == "run"
    assert judge.identity.context == LENGTH


def test_a_run_reads_special_tokens_that_are_spelt_out(runs):
    judge = opened(runs / "ar")
    tokenizer = judge.tokenizer
    ids = [tokenizer.bos_id, *tokenizer.encode("we"), tokenizer.unknown_id, tokenizer.eos_id]
    text = written(ids, tokenizer, judge.marks)
    assert text == "[BOS]we[UNK][EOS]"
    assert judge.read([text], 99) == [Reading(list(map(int, ids)), [0, 1, 1, 1, 0], False)]
    with pytest.raises(UsageError, match="^judge ar cannot read the text: the tokenizer's .* lack"):
        judge.read(["Ω"], 9)


def evaluated(runs: Path, judge: object, *words: str) -> int:
    return main(["eval", str(runs / "mdlm"), f"--judge={judge}", "--sample.number=22", *words])


def test_the_command_puts_real_and_shuffled_text_beside_the_samples(runs, capsys, monkeypatch):
    monkeypatch.setattr(generative, "without_mauve", lambda _: "there is none here")
    assert evaluated(runs, runs / "ar", "--sample.batch_size=8", "--sampler.top_p=0.9") == 0
    printed = capsys.readouterr().out
    assert "22 samples of 16 tokens by ancestral, ema weights of step 1; judge ar (ar" in printed
    assert "no MAUVE: there is none here" in printed
    (kept,) = (runs / "mdlm" / "evaluations").glob("judged-by-ar-ancestral-nfe-*")
    assert printed.rstrip().endswith(f"kept in {kept}")
    record = json.loads(kept.read_text())
    assert json.loads((runs / "mdlm" / "result.json").read_text())["evaluations"] == {
        kept.stem: record
    }
    real, mixed, samples = (record[name] for name in ("real", "shuffled", "samples"))
    assert real["perplexity"] < 0.7 * mixed["perplexity"]
    assert real["perplexity"] < 0.7 * samples["perplexity"]
    assert real["entropy"] == pytest.approx(mixed["entropy"])
    assert real["texts"] == samples["texts"] == 22
    assert real["mauve"] is None
    assert 1 <= record["nfe"] <= 4
    card = record["card"]
    assert card["sampler"] | {"name": "ancestral", "steps": 4, "top_p": 0.9} == card["sampler"]
    assert card["sample"]["number"] == 22
    assert card["judge"]["name"] == "ar"
    assert card["judge_length"] == LENGTH
    assert str(runs) not in json.dumps(card["judge"])
    assert card["mauve"] == "there is none here"
    names = ["generative_perplexity", "judged_bits_per_character", "entropy"]
    assert require_whole(Record.read(record), METRICS) == names


def test_a_sweep_judges_the_samples_of_each_value_and_real_text_once(runs, capsys, monkeypatch):
    read = []
    judge = generative.judge_texts

    def counted(judging, texts, *words, **options):
        read.append(len(texts))
        return judge(judging, texts, *words, **options)

    monkeypatch.setattr(generative, "judge_texts", counted)
    before = set((runs / "mdlm" / "evaluations").glob("*.json"))
    sweep = ["--sweep", "sampler.temperature=.5,.9", "--sample.length=8", "--json"]
    assert evaluated(runs, runs / "ar", *sweep) == 0
    new = set((runs / "mdlm" / "evaluations").glob("*.json")) - before
    assert {json.loads(f.read_text())["card"]["sampler"]["temperature"] for f in new} == {0.5, 0.9}
    assert len(read) == 2 + 3
    one, two = (json.loads(file.read_text()) for file in new)
    assert one["real"] == two["real"]
    assert evaluated(runs, runs / "ar", *sweep) == 0
    assert len(read) == 5
    capsys.readouterr()
    bad = ["--sweep", "sampler.temperature=.5,-1"]
    assert evaluated(runs, runs / "ar", *bad) == 2
    assert "temperature is -1" in capsys.readouterr().err.splitlines()[-1]
    assert len(read) == 5


def test_mauve_compares_features_with_those_of_other_real_texts(runs, folder, capsys, monkeypatch):
    def compute_mauve(*, p_features, q_features):
        seen.append((p_features, q_features))
        return SimpleNamespace(mauve=1 / len(seen))

    seen = []
    monkeypatch.setitem(sys.modules, "mauve", SimpleNamespace(compute_mauve=compute_mauve))
    monkeypatch.setattr(generative, "without_mauve", lambda number: None if number == 22 else "no")
    before = set((runs / "mdlm" / "evaluations").glob("*.json"))
    assert evaluated(runs, folder, "--json", "--sample.length=12", "--judge_length=5") == 0
    record = json.loads(capsys.readouterr().out)
    assert len(set((runs / "mdlm" / "evaluations").glob("*.json")) - before) == 1
    assert record["card"]["sample"]["length"] == 12
    assert record["card"]["data"]["length"] == LENGTH
    assert record["real"]["tokens"] == 22 * 4
    assert record["card"]["judge"]["network"] == "GPT2LMHeadModel"
    assert [record[name]["mauve"] for name in ("samples", "real", "shuffled")] == [1, 1 / 2, 1 / 3]
    (samples, reference), (real, again), (mixed, _) = seen
    assert samples.shape == real.shape == mixed.shape == reference.shape == (22, 16)
    assert np.array_equal(reference, again)
    assert not np.array_equal(real, reference)
    assert "22 real texts other than those judged" in record["card"]["mauve"]


def test_a_run_that_reads_labels_judges_nothing(runs, tmp_path):
    shutil.copytree(runs / "ar", tmp_path / "told")
    (tmp_path / "told" / "labels.json").write_text(json.dumps({"names": ["a", "b"]}))
    with pytest.raises(UsageError, match="told reads text given a label, so it cannot judge"):
        opened(tmp_path / "told")


@pytest.mark.slow
def test_a_bound_is_no_likelihood(runs, capsys):
    assert evaluated(runs, runs / "mdlm") == 2
    error = "mdlm is a run of process mdlm, whose bound is not the likelihood itself; a judge is"
    assert error in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sample.number=0"], "sample.number is 0, so there is nothing to judge; raise it"),
        (
            ["--on=sotu"],
            "--on and --judge are measured one at a time (bound and judge); leave one out",
        ),
    ],
)
def test_a_judge_needs_something_to_read(runs, words, message, capsys):
    assert evaluated(runs, runs / "ar", *words) == 2
    assert message in capsys.readouterr().err
