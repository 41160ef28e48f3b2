"""The state of every part survives a checkpoint: it is trained, averaged, saved, restored, loaded.

A schedule, a process and an objective with weights and buffers of their own (`stateful`) train
beside the network; `run` says what `eval` says, to the last digit, and a resumed run ends with the
same bits.
"""

import json
from pathlib import Path

import pytest
import torch

from platform_core.cli import main
from platform_core.evaluation.trained import TrainedRun
from platform_core.runtime.checkpoint import Checkpoints

PLUGIN = '''
import torch
from torch import nn
from platform_core.component import Component
from platform_core.hookspecs import hookimpl
from platform_core.objective import Nelbo
from platform_core.process import Absorbing
from platform_core.schedule import Schedule


class Learned(Schedule, nn.Module):
    """alpha = (1 - t)^p with a learned p."""

    def __init__(self):
        nn.Module.__init__(self)
        self.log_power = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def alpha(self, t):
        return (1 - t) ** self.log_power.exp()

    def slope(self, t):
        power = self.log_power.exp()
        return -power * (1 - t) ** (power - 1)

    def inverse(self, alpha):
        return 1 - alpha ** (1 / self.log_power.exp())


class Counted(Absorbing, nn.Module):
    """Absorbing noise that counts its calls in a saved buffer."""

    def __init__(self, vocab_size: int):
        nn.Module.__init__(self)
        Absorbing.__init__(self, vocab_size, time_conditioned=True)
        self.register_buffer("calls", torch.zeros(()))

    def corrupt(self, x0, alpha, generator):
        if torch.is_grad_enabled():
            self.calls += 1
        return super().corrupt(x0, alpha, generator)


class Weighed(Nelbo):
    """The bound, its logits scaled by a learned number that the row function uses."""

    def __init__(self, model, t_min: float = 1e-3):
        super().__init__(model, t_min)
        self.scale = nn.Parameter(torch.ones(()))

    def row_loss(self, logits, x_t, x0, alpha, slope):
        return super().row_loss(logits * self.scale, x_t, x0, alpha, slope)


@hookimpl
def platform_schedules():
    return [Component("learned", "stateful:Learned", "a learned power")]


@hookimpl
def platform_processes():
    return [Component("counted", "stateful:Counted", "counts")]


@hookimpl
def platform_objectives():
    return [Component("weighed", "stateful:Weighed", "a learned scale")]
'''

WORDS = (  # noqa: SIM905
    "--process=counted --schedule=learned --objective=weighed --backbone=dit "
    "--backbone.hidden_size=16 --backbone.num_blocks=1 --backbone.num_heads=2 "
    "--backbone.cond_size=8 --data.corpus=text --data.path=t.txt --data.length=16 "
    "--train.batch_size=4 --train.learning_rate=0.05 --train.warmup_steps=0 "
    "--train.precision=fp32 --train.ema_decay=0.5 --train.checkpoint_every=3 "
    "--evaluate.sequences=8 --evaluate.on_the_way=2 --sample.number=0 --track.to=none"
).split()


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("plugin") / "stateful.py"
    file.write_text(PLUGIN)
    return file


@pytest.fixture
def platform(tmp_path: Path, plugin: Path, monkeypatch: pytest.MonkeyPatch):
    """The command with the plugin, in a folder with a text."""
    (tmp_path / "t.txt").write_text("we the people of the united states " * 100)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(plugin.parent)

    def run(*words: str) -> None:
        assert main(["-p", str(plugin), *words]) == 0

    return run


def weights(run: Path) -> dict[str, torch.Tensor]:
    checkpoint = Checkpoints(run / "checkpoints", keep=1).load()
    assert checkpoint is not None
    return {f"{g}/{n}": t for g, tensors in checkpoint.tensors.items() for n, t in tensors.items()}


@pytest.mark.slow
def test_state_outside_of_the_network_is_kept(platform, tmp_path):
    platform("run", *WORDS, "--train.steps=6", "--output=whole")
    whole = weights(tmp_path / "whole")
    for group in ("objective", "objective_ema"):
        assert whole[f"{group}/model.schedule.log_power"].abs() > 1e-3
        assert (whole[f"{group}/scale"] - 1).abs() > 1e-3
    # Noise is drawn sequence by sequence, and twice, because it depends on the schedule's weights.
    assert whole["objective/model.process.calls"] == 6 * 4 * 2
    assert "objective_ema/model.process.calls" not in whole

    platform("run", *WORDS, "--train.steps=3", "--output=parts")
    platform("run", "--resume=parts", "--train.steps=6")
    parts = weights(tmp_path / "parts")
    assert parts.keys() == whole.keys()
    assert all(torch.equal(parts[name], tensor) for name, tensor in whole.items())


@pytest.mark.slow
@pytest.mark.parametrize("average", ["ema", "raw"])
def test_run_says_what_eval_says(platform, tmp_path, average, capsys):
    platform("run", *WORDS, "--train.steps=6", "--output=r", f"--evaluate.weights={average}")
    said = json.loads((tmp_path / "r/result.json").read_text())["nats_per_token"]
    capsys.readouterr()
    platform("eval", "r", "--json")
    again = json.loads(capsys.readouterr().out)["nats_per_token"]
    assert again == said


@pytest.mark.slow
def test_a_run_that_starts_from_another_takes_over_the_model_s_state(platform, tmp_path):
    platform("run", *WORDS, "--train.steps=6", "--output=r")
    platform("run", "--init=r", "--train.steps=1", "--train.learning_rate=0", "--output=s")
    before, after = weights(tmp_path / "r"), weights(tmp_path / "s")
    name = "model.schedule.log_power"
    assert torch.equal(after[f"objective/{name}"], before[f"objective_ema/{name}"])


@pytest.mark.slow
def test_an_open_run_has_all_of_its_state(platform, plugin, tmp_path, monkeypatch):
    platform("run", *WORDS, "--train.steps=6", "--output=r")
    monkeypatch.setenv("PLATFORM_PLUGINS", str(plugin))
    kept = weights(tmp_path / "r")
    for average, group in (("ema", "objective_ema"), ("raw", "objective")):
        run = TrainedRun.open(tmp_path / "r", average=average)
        assert torch.equal(run.objective.scale, kept[f"{group}/scale"])
        assert torch.equal(run.model.process.calls, kept["objective/model.process.calls"])


@pytest.mark.slow
def test_an_export_that_would_lose_state_is_refused(platform, plugin, tmp_path, capsys):
    platform("run", *WORDS, "--train.steps=1", "--output=r")
    capsys.readouterr()
    assert main(["-p", str(plugin), "export", "r", "x"]) == 2
    assert "the schedule of this run has state of its own (schedule.log" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
