"""`platform eval RUN --order`: the exact likelihood of orders of a trained run, beside the bound."""

import contextlib
import io
import json
from pathlib import Path

import pytest

from platform_core.cli import main

SMALL = (  # noqa: SIM905
    "run --backbone.hidden_size=16 --backbone.num_blocks=1 --backbone.num_heads=2 --seed=1 "
    "--data.corpus=text --data.length=16 --train.batch_size=16 --train.steps=20 "
    "--train.warmup_steps=2 --train.learning_rate=0.02 --train.evaluate_every=0 "
    "--evaluate.sequences=4 --sample.number=2 --track.to=none --train.precision=fp32"
).split()
ONE = "we the people of these united states in order to form a more perfect union "


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("runs")
    (home / "words.txt").write_text(ONE * 60)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        patch.setenv("PLATFORM_CACHE", str(home / "cache"))
        for name, words in {
            "mdlm": ["--process=mdlm", "--sampler=ordered", "--sampler.at_once=entropy-8"],
            "ordered": ["--process=mdlm", "--objective=ordered-likelihood"],
            "duo": ["--process=duo"],
        }.items():
            text = f"--data.path={home / 'words.txt'}"
            assert main([*SMALL, text, *words, f"--output={home / name}"]) == 0
    return home


def measured(run: Path, *words: str) -> dict[str, object]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(["eval", str(run), *words, "--json"]) == 0
    found: dict[str, object] = json.loads(out.getvalue())
    return found


def test_the_evaluation_has_the_value_that_the_objective_reports(runs: Path) -> None:
    by_order = measured(runs / "ordered", "--order=confidence")
    result = json.loads((runs / "ordered" / "result.json").read_text())
    assert by_order["ordered"]["nats_per_token"] == pytest.approx(result["nats_per_token"])
    assert result["card"]["kind"] == "value"


def test_orders_are_kept_apart_and_compared_in_tables_of_their_own(runs: Path, capsys) -> None:
    for order in ("confidence", "left-to-right"):
        for at_once in ("1", "cosine-4"):
            assert main(["eval", str(runs / "mdlm"), "--order", order, "--at_once", at_once]) == 0
    said = capsys.readouterr().out
    assert said.count("exact likelihood") == 4
    kept = [path.name for path in (runs / "mdlm" / "evaluations").glob("ordered-*.json")]
    assert len(kept) == 4
    measured(runs / "ordered", "--order=confidence")
    assert main(["compare", str(runs / "mdlm"), str(runs / "ordered")]) == 0
    table = capsys.readouterr().out
    assert "exact likelihood by confidence, 1 at once" in table
    assert "exact likelihood by left-to-right" not in table, "only one run has it"


def test_a_run_without_masks_has_no_order(runs: Path, capsys) -> None:
    assert main(["eval", str(runs / "duo"), "--order", "margin"]) == 2
    assert "--order needs a process that is Absorbing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--at_once=3"], "--at_once is for an order"),
        (["--order=entropy", "--at_once=many"], "--at_once 'many' is unknown"),
        (["--order=random"], "invalid choice"),
        (["--order=entropy", "--evaluate.draws=3"], "--evaluate.draws is not read"),
    ],
)
def test_mistakes_are_one_line(runs: Path, capsys, words: list[str], said: str) -> None:
    assert main(["eval", str(runs / "mdlm"), *words]) == 2
    assert said in capsys.readouterr().err


def test_samples_say_how_many_evaluations_a_text_took(runs: Path, capsys) -> None:
    assert main(["sample", str(runs / "mdlm"), "--sample.number=4"]) == 0
    said = capsys.readouterr().err
    evaluations = float(said.split(" network evaluations each")[0].rpartition(" ")[2])
    assert 1 <= evaluations < 16
