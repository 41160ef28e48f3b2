"""`--train.flops`: a budget instead of a number of steps."""

from pathlib import Path

import pytest

from platform_core.cli import main
from platform_core.record.directory import RunDirectory
from platform_core.record.files import read_json

ROOT = Path(__file__).parents[1]

WORDS = (  # noqa: SIM905
    "run --process=mdlm --backbone=dit --backbone.hidden_size=16 --backbone.num_blocks=1 "
    "--backbone.num_heads=2 --data.corpus=text --data.length=16 --train.batch_size=4 "
    "--train.warmup_steps=2 --evaluate.sequences=2 --evaluate.split=train --sample.number=0 "
    "--track.to=none"
).split()


def run(folder: Path, *words: str) -> int:
    (folder / "text.txt").write_text("we the people of these united states " * 40)
    return main([*WORDS, f"--data.path={folder / 'text.txt'}", *words])


@pytest.mark.slow
def test_a_budget_makes_as_many_steps_as_it_pays_for(tmp_path, capsys):
    assert run(tmp_path, "--train.flops=2e7", f"--output={tmp_path / 'run'}") == 0
    said = capsys.readouterr().err
    steps = read_json(RunDirectory(tmp_path / "run").result)["steps"]
    cost = float(said.split(" steps of ")[1].split()[0])
    assert steps > 1
    assert steps * cost <= 2e7 * 1.01 < (steps + 1) * cost * 1.02
    assert main(["run", "--resume", str(tmp_path / "run")]) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--train.flops=1e9", "--train.steps=5"], "give only one"),
        (["--train.flops=10"], "less than one step"),
        (["--train.flops=-1"], "flops"),
    ],
)
def test_what_is_no_budget_is_one_line(tmp_path, capsys, words, said):
    assert run(tmp_path, *words, f"--output={tmp_path / 'run'}") == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert said in told


@pytest.mark.slow
def test_the_iso_flop_sweep_composes(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(ROOT)
    words = ["experiments/iso_flop/sweep.yaml", "--dry_run", f"--output={tmp_path / 'sweep'}"]
    assert main(["sweep", *words]) == 0
    assert "18" in capsys.readouterr().out
