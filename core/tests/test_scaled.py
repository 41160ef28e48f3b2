"""fp16: the loss is scaled, and an update that the scale spoils changes nothing.

Here on a CPU, where torch has the scaler and fp16 too, though neither pays.
"""

import copy
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from short_training import OPTIONS, Sequences, flat
from test_deferred import everything, same, spoil

from platform_core.composition.options import TrainOptions
from platform_core.errors import UsageError
from platform_core.model import Model
from platform_core.objective import Nelbo
from platform_core.parameterization import Mean
from platform_core.process import Absorbing
from platform_core.runtime import accelerator as runtime
from platform_core.schedule import LogLinear
from platform_core.testing.toy import TinyNetwork
from platform_core.training.progress import Window, Work
from platform_core.training.trainer import Trainer

SCALE = 2.0**8
OPTIMIZERS = pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd"])


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Accelerator]:
    """One that believes to have a GPU with fp16."""
    made = Accelerator(cpu=True)
    monkeypatch.setitem(made.state.__dict__, "_mixed_precision", "fp16")
    made.native_amp = True
    made.scaler = torch.amp.GradScaler("cpu", init_scale=SCALE)
    return made


def trainer(accelerator: Accelerator, options: TrainOptions = OPTIONS) -> Trainer:
    torch.manual_seed(0)
    process = Absorbing(5, time_conditioned=True)
    model = Model(process, LogLinear(), Mean(), TinyNetwork(process.num_states))
    return Trainer(Nelbo(model), Sequences(), options, accelerator=accelerator, seed=3)


@OPTIMIZERS
def test_an_update_that_the_scale_spoils_changes_nothing_but_the_scale(optimizer, accelerator):
    trained = trainer(accelerator, replace(OPTIONS, optimizer=optimizer))
    assert not trained.deferred
    spoil(trained, 2)
    for _ in range(2):
        assert trained.update().is_finite
    before, count = everything(trained), trained.ema.updates
    skipped = trained.update()
    assert not skipped.is_finite
    assert same(everything(trained), before)
    assert (trained.step, trained.ema.updates) == (3, count)
    assert trained.scaler.get_scale() == SCALE / 2
    assert trained.update().is_finite
    assert not same(everything(trained), before)
    assert trained.ema.updates == count + 1


def test_the_scaled_loss_trains_as_the_loss_itself_up_to_rounding(accelerator, monkeypatch):
    options = replace(OPTIONS, learning_rate=1e-3)
    scaled = trainer(accelerator, options)
    losses = [scaled.update().loss for _ in range(6)]
    monkeypatch.setitem(accelerator.state.__dict__, "_mixed_precision", "no")
    plain = trainer(Accelerator(cpu=True), options)
    assert losses == pytest.approx([plain.update().loss for _ in range(6)], rel=1e-2)
    torch.testing.assert_close(flat(scaled), flat(plain), rtol=1e-2, atol=2e-3)


def test_a_gradient_that_no_scale_can_mend_ends_the_training(accelerator):
    trained = trainer(accelerator)
    spoil(trained, *range(100))
    for _ in range(8):
        trained.update()
    assert trained.scaler.get_scale() == 1
    with pytest.raises(UsageError, match="step 8: the loss is .* and the gradient's norm nan"):
        trained.update()


def test_a_loss_that_is_not_finite_ends_it_at_once(accelerator, monkeypatch):
    trained = trainer(accelerator)
    forward = trained.objective.forward

    def endless(batch, draws):
        loss = forward(batch, draws)
        return loss._replace(total=loss.total + torch.inf)

    monkeypatch.setattr(trained.objective, "forward", endless)
    with pytest.raises(UsageError, match="step 0: the loss is inf"):
        trained.update()


def test_the_scale_is_restored(accelerator):
    whole = trainer(accelerator)
    spoil(whole, 1)
    for _ in range(3):
        whole.update()
    saved = whole.checkpoint()
    kept = {
        group: {name: tensor.detach().clone() for name, tensor in tensors.items()}
        for group, tensors in saved.tensors.items()
    }
    other = copy.copy(accelerator)  # its own list of optimizers, and a scale of its own
    other._optimizers, other.scaler = [], torch.amp.GradScaler("cpu", init_scale=SCALE)
    restored = trainer(other)
    restored.restore(type(saved)(kept, dict(saved.state)), source="memory")
    assert [whole.update() for _ in range(3)] == [restored.update() for _ in range(3)]
    assert restored.scaler.get_scale() == whole.scaler.get_scale() == SCALE / 2
    assert torch.equal(flat(whole), flat(restored))


def test_norms_that_are_not_finite_are_left_out_of_the_mean(accelerator):
    trained = trainer(accelerator)
    spoil(trained, 1)
    updates, window = [trained.update() for _ in range(3)], Window()
    for update in updates:
        window.add(update)
    mean = (updates[0].gradient_norm + updates[2].gradient_norm) / 2
    assert window.metrics(updates[-1], Work())["gradient_norm"] == mean


def test_fp16_needs_a_gpu():
    with pytest.raises(UsageError, match="train.precision is fp16, which needs a GPU, and torch"):
        runtime.start("fp16")


@pytest.mark.parametrize(
    ("capability", "bf16", "expected"),
    [
        ((8, 0), True, "bf16"),
        ((7, 5), False, "fp16"),
        ((7, 0), False, "fp16"),
        ((6, 1), False, "no"),
    ],
)
def test_auto_is_what_the_gpu_is_quickest_in(capability, bf16, expected, monkeypatch):
    monkeypatch.setattr(runtime, "has_bf16", lambda *, cpu: bf16)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert runtime.mixed_precision("auto", cpu=False) == expected
    assert runtime.mixed_precision("fp32", cpu=False) == "no"
