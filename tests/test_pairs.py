"""Runs on prompts with answers: what training reads, and answers by sampler."""

import json
import random

import pytest
import torch

from platform_core.cli import main
from platform_core.data.sequences import TokenSplit, load_data
from platform_core.draws import Draws
from platform_core.evaluation.trained import TrainedRun
from platform_core.record.results import evaluations
from platform_mdlm.objective import MaskedNelbo

WORDS = [
    "--backbone.hidden_size=16",
    "--backbone.num_blocks=1",
    "--backbone.num_heads=2",
    "--data.corpus=json",
    "--data.prompt_column=prompt",
    "--data.answer_column=answer",
    "--data.length=12",
    "--train.batch_size=4",
    "--train.steps=2",
    "--sample.number=0",
    "--track.to=none",
]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """200 sums of digits as JSON lines."""
    draw, path = random.Random(1), tmp_path_factory.mktemp("pairs") / "sums.jsonl"
    numbers = [(draw.randrange(10), draw.randrange(10)) for _ in range(200)]
    rows = ({"prompt": f"{a}+{b}=", "answer": str(a + b), "unit": "="} for a, b in numbers)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def train(process, pairs, home, *more):
    words = [f"--process={process}", f"--data.path={pairs}", f"--output={home / process}", *more]
    assert main(["run", *WORDS, *words]) == 0
    return home / process


@pytest.fixture(scope="module")
def masked(pairs, tmp_path_factory):
    return train("mdlm", pairs, tmp_path_factory.mktemp("masked"))


@pytest.fixture(scope="module")
def causal(pairs, tmp_path_factory):
    return train("ar", pairs, tmp_path_factory.mktemp("causal"))


def measured(capsys, run, *words):
    capsys.readouterr()
    assert main(["eval", str(run), "--exact-match", "--json", *words]) == 0
    return json.loads(capsys.readouterr().out)


def test_training_reads_prompts_clean_and_counts_answers(masked):
    run, seen = TrainedRun.open(masked), []
    split = load_data(run.composition.data, run.tokenizer).split("validation")
    batch = split.batch([0, 1])
    for row, given in zip(batch.x0, batch.given, strict=True):
        prompt = run.tokenizer.decode(row[given].tolist())
        assert prompt.startswith("[BOS]")
        assert prompt.endswith("=")
    assert torch.equal(batch.mask, ~batch.given)
    objective = MaskedNelbo(run.model.watched(lambda inputs, alpha: seen.append(inputs)))
    loss = objective(batch, Draws.derive("pairs", step=0, first=0, total=2))
    assert torch.equal(seen[0][batch.given], batch.x0[batch.given])
    assert not torch.equal(seen[0], batch.x0)
    assert float(loss.per_token[batch.given].abs().max()) == 0


def test_answers_are_drawn_by_the_sampler_that_is_asked_for(masked, capsys):
    found = measured(capsys, masked, "--sampler.steps=4")
    assert found["items"] == 10
    assert 0 <= found["exact_match"]["share"] <= 1
    assert found["card"]["sampler"]["steps"] == 4
    ordered = ["--sampler=ordered", "--sampler.score=entropy"]
    first, again = (measured(capsys, masked, *ordered)["exact_match"] for _ in range(2))
    assert first == again
    assert len(evaluations(TrainedRun.open(masked).directory)) == 2
    some = ["--evaluate.split=train", "--evaluate.sequences=7", "--sample.batch_size=2"]
    assert measured(capsys, masked, *some)["items"] == 7
    assert main(["eval", str(masked), "--exact-match"]) == 0
    assert "10 answers by ancestral, validation text" in capsys.readouterr().out


def test_a_text_between_two_parts_is_filled_in(masked, causal, capsys):
    suffix = "--data.suffix_column=unit"
    found = measured(capsys, masked, suffix)
    assert found["card"]["data"]["suffix_column"] == "unit"
    assert main(["eval", str(causal), "--exact-match", suffix]) == 2
    assert "left-to-right only continues a beginning" in capsys.readouterr().err


def test_a_left_to_right_model_answers_prompts_of_different_lengths(causal, capsys):
    assert measured(capsys, causal)["nfe"] <= 12


def test_answers_need_prompts(masked, capsys, monkeypatch):
    monkeypatch.setattr(TokenSplit, "paired", False)
    assert main(["eval", str(masked), "--exact-match"]) == 2
    assert "--exact_match needs prompts with answers" in capsys.readouterr().err
