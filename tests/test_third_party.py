"""Processes of outside packages, composed like any other: one is no mixture with a prior
(`platform-kernel`), one has weights (`platform-learned-schedule`).

Both packages in `tests/third_party` use what plugins may use and nothing else. Their laws and their
own tests are run by `test_outside_packages`.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from matrix import VOCABULARY, Matrix, Trial

from platform_core.cli import main
from platform_core.composition import compatibility
from platform_core.errors import IncompatibleError
from platform_core.registry.loading import find_plugins
from platform_core.runtime.checkpoint import Checkpoints

KERNEL = {"PLATFORM_PLUGINS": "platform_kernel.plugin"}
TINY = """
--backbone.hidden_size 16 --backbone.num_blocks 1 --backbone.num_heads 2 --data.length 16
--data.corpus text --data.path text.txt --data.tokenizer character
--train.steps 2 --train.batch_size 2 --train.warmup_steps 0 --train.precision fp32
--evaluate.sequences 2 --sample.number 1 --sampler.steps 2 --track.aim false
"""


@pytest.fixture(scope="module")
def matrix() -> Matrix:
    """All parts, those of the package among them."""
    return Matrix(find_plugins(KERNEL))


def test_the_process_goes_with_what_needs_no_mixture(matrix: Matrix):
    """Parts that need masks, uniform noise or a prior refuse it, and say what to choose."""
    assert compatibility.matrix(matrix.plugins, "process")["kernel"] == {
        "schedule": matrix.plugins.names("schedule"),
        "parameterization": ["mean", "vocabulary"],
        "backbone": ["dit", "hf"],
        "objective": ["block-nelbo", "discrete-nelbo", "nelbo"],
        "sampler": [
            *("ancestral", "best-of", "blocks", "d-cbg", "particles", "self-correction"),
            "semi-autoregressive",
        ],
    }
    row, _ = matrix.family("kernel", ())
    refused = matrix.refusal(replace(row, parameterization="subs"), "ancestral")
    assert isinstance(refused, IncompatibleError)
    assert str(refused).startswith("parameterization subs needs a masking process")


@pytest.mark.slow
def test_whatever_it_goes_with_runs(matrix: Matrix):
    """Every objective and sampler under every reading of the network."""
    ran = set()
    chosen = [row for row in matrix.rows if (row.process, row.backbone) == ("kernel", "dit")]
    for row in (row for row in chosen if row.schedule == "cosine"):
        trial = Trial(matrix, row)
        for sampler in matrix.samplers:
            if matrix.refusal(row, sampler) is None:
                bound, sample = trial.run(sampler)
                assert 0 < bound.nats_per_token < 1000
                assert sample.tokens.max() < VOCABULARY
                ran.add((row, sampler))
    assert len(ran) == 42


@pytest.mark.slow
def test_it_trains_evaluates_and_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("A stranger's package is trained as any other. " * 40)
    words = f"-p platform_kernel.plugin run --process kernel --output run {TINY}".split()
    assert main(words) == 0
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["bits_per_token"] > 0
    assert main(["-p", "platform_kernel.plugin", "sample", "run", "--sampler.steps=2"]) == 0


def test_exponents_of_token_values_are_trained_averaged_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    folder = Path(__file__).parent / "third_party/platform-learned-schedule/src"
    monkeypatch.syspath_prepend(folder)
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("Some letters are hidden sooner than others. " * 40)
    plugin, tiny = ("-p", "platform_learned_schedule.plugin"), TINY.split()
    assert main([*plugin, "run", "--process=by-value", "--output=run", *tiny]) == 0
    said = json.loads((tmp_path / "run/result.json").read_text())["nats_per_token"]
    kept = Checkpoints(tmp_path / "run/checkpoints", keep=1).load()
    assert kept is not None
    last, averaged = (
        kept.tensors[group]["model.process.logs"] for group in ("objective", "objective_ema")
    )
    assert (last != 0).all()
    assert not last.equal(averaged)
    capsys.readouterr()
    assert main([*plugin, "eval", "run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["nats_per_token"] == said
    assert main([*plugin, "sample", "run", "--sampler.steps=2"]) == 0
