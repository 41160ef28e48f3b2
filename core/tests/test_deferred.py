"""Updates whose figures are read later: the same numbers, and what a step that is not finite does.

The device is the CPU, where figures are read at once unless a test asks for the other way.
"""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from short_training import flat
from test_trainer import trainer
from torch import Tensor, nn

from platform_core.cli import main
from platform_core.composition.options import TrainOptions
from platform_core.errors import UsageError
from platform_core.training import deferred
from platform_core.training.deferred import Gate, can_hold_back
from platform_core.training.ema import Ema
from platform_core.training.trainer import Trainer

OPTIONS = TrainOptions(
    steps=20, batch_size=4, accumulate=2, warmup_steps=2, weight_decay=0.1, precision="fp32"
)
OPTIMIZERS = ["adamw", "muon", "sgd", "rmsprop"]


@pytest.fixture
def later(monkeypatch):
    """Figures are read later on this machine too."""
    monkeypatch.setattr(deferred, "DEFERRED_ON", {"cpu"})


def everything(trained: Trainer) -> dict[str, Tensor]:
    """Weights, the optimizer's state, and the average."""
    state = {
        f"{name}/{key}": value.clone()
        for name, parameter in trained.trained.items()
        for key, value in trained.optimizer.state[parameter].items()
    }
    average = {f"average/{name}": shadow.clone() for name, shadow in trained.ema.shadow.items()}
    return {"weights": flat(trained).clone(), **state, **average}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def spoil(trained: Trainer, *steps: int) -> None:
    """Makes one gradient of the given updates infinite."""
    weight = next(iter(trained.trained.values()))
    weight.register_hook(lambda g: g * torch.inf if trained.step in steps else g)


def launched(trained: Trainer, number: int) -> None:
    for _ in range(number):
        trained.launch()


@pytest.mark.slow
@pytest.mark.parametrize("ema_decay", [0.0, 0.4, 0.9999])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_figures_that_are_read_later_are_those_that_are_read_at_once(
    optimizer, ema_decay, monkeypatch
):
    options = replace(OPTIONS, optimizer=optimizer, ema_decay=ema_decay)
    once = trainer(options)
    expected = [once.update() for _ in range(20)]
    monkeypatch.setattr(deferred, "DEFERRED_ON", {"cpu"})
    trained, read = trainer(options), []
    assert trained.deferred
    assert not once.deferred
    for _ in range(4):
        launched(trained, 5)
        assert len(trained._unread) == 5 or not read
        read += trained.read()
    assert read == expected
    assert same(everything(trained), everything(once))
    assert trained.ema.updates == once.ema.updates == 20


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_update_that_is_not_finite_leaves_everything_as_it_was(optimizer, later):
    trained = trainer(replace(OPTIONS, optimizer=optimizer))
    spoil(trained, 5)
    launched(trained, 5)
    before = everything(trained)
    for _ in range(4):
        trained.launch()
        assert same(everything(trained), before)
    with pytest.raises(UsageError, match=r"^step 5: the loss is .* and the gradient's norm nan;"):
        trained.read()
    assert same(everything(trained), before)
    assert (trained.step, trained.ema.updates) == (5, 5)


def six(trained: Trainer) -> None:
    launched(trained, 6)
    trained.read()


def test_the_error_is_the_one_of_figures_that_are_read_at_once(monkeypatch):
    said = []
    for device in ("cuda", "cpu"):
        monkeypatch.setattr(deferred, "DEFERRED_ON", {device})
        trained = trainer(OPTIONS)
        spoil(trained, 3)
        with pytest.raises(UsageError) as error:
            six(trained)
        said.append((str(error.value), trained.step, flat(trained)))
    assert said[0][:2] == said[1][:2]
    assert torch.equal(said[0][2], said[1][2])


def test_the_first_update_is_read_at_once_where_the_state_is_not_there_yet(later):
    trained = trainer(replace(OPTIONS, optimizer="rmsprop"))
    before = flat(trained).clone()
    spoil(trained, 0)
    with pytest.raises(UsageError, match="step 0: the loss"):
        trained.launch()
    assert torch.equal(flat(trained), before)


def test_a_loss_that_is_not_finite_is_seen_in_the_gradient(later, monkeypatch):
    trained = trainer(OPTIONS)
    forward = trained.objective.forward

    def endless(batch, draws):
        loss = forward(batch, draws)
        # Its gradient is finite, as that of a constant that was added.
        return loss._replace(total=loss.total + torch.inf) if draws.step == 2 else loss

    monkeypatch.setattr(trained.objective, "forward", endless)
    launched(trained, 2)
    before = everything(trained)
    launched(trained, 2)
    assert same(everything(trained), before)
    with pytest.raises(UsageError, match="step 2: the loss is inf and the gradient's norm nan"):
        trained.read()


def test_no_checkpoint_is_made_over_an_update_that_was_held_back(later):
    trained = trainer(OPTIONS)
    spoil(trained, 1)
    launched(trained, 3)
    with pytest.raises(UsageError, match="step 1: the loss"):
        trained.checkpoint()


def test_figures_are_read_now_and_then_even_if_nobody_asks(later, monkeypatch):
    monkeypatch.setattr("platform_core.training.trainer.MOST_UNREAD", 4)
    trained = trainer(OPTIONS)
    spoil(trained, 1)
    with pytest.raises(UsageError, match="step 1: the loss"):
        launched(trained, 4)


class Counter(torch.optim.SGD):
    """An optimizer of an author's own, which may keep anything."""


def test_only_optimizers_whose_whole_state_is_known_are_held_back():
    weight = nn.Parameter(torch.ones(2, 2))
    weight.grad = torch.ones(2, 2)
    assert can_hold_back(torch.optim.AdamW([weight], fused=True))
    assert not can_hold_back(Counter([weight], momentum=0.9))
    plain = torch.optim.SGD([weight], momentum=0.9)
    assert not can_hold_back(plain)  # no state yet
    plain.step()
    assert can_hold_back(plain)


def test_a_gate_stays_shut():
    gate = Gate(torch.device("cpu"))
    for norm, is_open in [(1.0, True), (torch.nan, False), (1.0, False)]:
        gate.look(torch.tensor(norm))
        assert bool(gate.open) is is_open


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.5, 0.9999])
def test_the_average_moves_alike_whether_or_not_the_device_decides(decay):
    torch.manual_seed(0)
    live = {"a": torch.randn(40, 7), "b": torch.randn(33)}
    one, other = Ema(live, decay), Ema(live, decay)
    for update in range(20):
        for tensor in live.values():
            tensor += 0.1 * torch.randn(tensor.shape)
        passed = update % 5 != 3
        if passed:
            one.updates = other.updates
            one.update()
        other.update(torch.tensor(passed))
        assert all(torch.equal(one.shadow[name], other.shadow[name]) for name in live)


TINY = """
--process first --backbone small --backbone.hidden_size 16 --track.to none
--data.length 16 --data.corpus text --data.path text.txt --train.batch_size 2
--train.steps 11 --train.log_every 3 --train.evaluate_every 5 --train.precision fp32
--evaluate.on_the_way 2 --evaluate.sequences 2 --sample.number 1 --sampler.steps 2
"""
OF_TRAINING = ("loss", "gradient_norm", "learning_rate")


@pytest.mark.slow
def test_a_run_writes_the_same_when_figures_are_read_later(stub_parts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("the cat sat on the mat, and the dog sat on the log.\n" * 40)
    written = {}
    for device in ("cuda", "cpu"):
        monkeypatch.setattr(deferred, "DEFERRED_ON", {device})
        assert main(["run", *TINY.split(), f"--output={device}"]) == 0
        lines = Path(device, "metrics.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        kept = [
            {key: record.get(key) for key in (*OF_TRAINING, "step", "subset", "nats_per_token")}
            for record in records
        ]
        files = json.loads(Path(device, "checkpoints/step-0000011/state.json").read_text())
        written[device] = kept, files["files"]
    assert written["cpu"] == written["cuda"]
    trained = [record["step"] for record in written["cpu"][0] if record["subset"] == "train"]
    assert trained == [3, 6, 9]


@pytest.mark.slow
def test_two_processes_hold_back_together_what_one_of_them_finds(tmp_path):
    script = Path(__file__).with_name("two_processes.py")
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
    done = subprocess.run(
        [*launch, "--master_port=29533", script, tmp_path],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    one, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert one == other
    assert one["later"] == one["once"]
    assert one["later"][1][:2] == ["step 3: the loss is inf", 3]
