"""Optimizers: their groups, their names, and that a training with any of them resumes exactly."""

import pytest
import torch
from short_training import Sequences
from test_trainer import trainer
from torch import nn

from platform_core.composition.options import TrainOptions
from platform_core.errors import UsageError
from platform_core.registry.loading import installed
from platform_core.training.optimizers import groups, make_optimizer
from platform_core.training.trainer import learning_rate


def parameters() -> dict[str, nn.Parameter]:
    shapes = {"embed.weight": (5, 4), "layer.weight": (4, 4), "layer.bias": (4,), "norm": (4,)}
    torch.manual_seed(0)
    return {name: nn.Parameter(torch.randn(shape)) for name, shape in shapes.items()}


def test_weight_decay_is_of_matrices_alone():
    named = parameters()
    (one,) = groups(named, 0.0)
    assert one["params"] == list(named.values())
    decays, others = groups(named, 0.1)
    assert decays["weight_decay"] == 0.1
    assert [id(p) for p in decays["params"]] == [id(named["layer.weight"])]
    assert others["weight_decay"] == 0
    assert len(others["params"]) == 3


def test_weight_decay_moves_what_has_no_gradient_and_only_matrices():
    named = parameters()
    before = {name: p.detach().clone() for name, p in named.items()}
    optimizer = make_optimizer(
        named, TrainOptions(weight_decay=0.5, learning_rate=0.1), installed()
    )
    for parameter in named.values():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    moved = {name for name, p in named.items() if not torch.equal(p, before[name])}
    assert moved == {"layer.weight"}
    assert torch.allclose(named["layer.weight"], before["layer.weight"] * 0.95)


def test_muon_takes_the_matrices_and_adamw_the_rest():
    named = parameters()
    optimizer = make_optimizer(named, TrainOptions(optimizer="muon"), installed())
    for parameter in named.values():
        parameter.grad = torch.randn(parameter.shape)
    optimizer.step()
    state = {name: set(optimizer.state[p]) for name, p in named.items()}
    assert state.pop("layer.weight") == {"momentum_buffer"}
    assert all(keys == {"step", "exp_avg", "exp_avg_sq"} for keys in state.values())


def test_a_name_that_no_optimizer_has_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match=r"expected one of adamw, muon, .*did you mean adamw\?"):
        make_optimizer(parameters(), TrainOptions(optimizer="admw"), installed())


@pytest.mark.parametrize("name", ["adamw", "muon", "sgd", "nadam", "adagrad", "rmsprop"])
def test_a_training_resumes_exactly_with_every_optimizer(name):
    options = TrainOptions(
        steps=4, batch_size=4, warmup_steps=0, learning_rate=1e-2, optimizer=name, weight_decay=0.1
    )
    whole, first, second = (trainer(options, Sequences()) for _ in range(3))
    for _ in range(4):
        whole.update()
    for _ in range(2):
        first.update()
    second.restore(first.checkpoint(), source="here")
    for _ in range(2):
        second.update()
    for key, parameter in whole.trained.items():
        assert torch.equal(parameter, second.trained[key])
        assert torch.equal(whole.ema.shadow[key], second.ema.shadow[key])


@pytest.mark.parametrize(
    ("decay", "options", "expected"),
    [
        ("linear", {}, [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]),
        ("linear", {"decay_floor": 0.5}, [0.5, 1.0, 1.0, 0.875, 0.75, 0.625]),
        ("cosine", {"decay_floor": 0.1}, [0.5, 1.0, 1.0, 0.868198, 0.55, 0.231802]),
        ("wsd", {"decay_share": 0.5}, [0.5, 1.0, 1.0, 1.0, 2 / 3, 1 / 3]),
        ("wsd", {"decay_share": 0.5, "decay_floor": 0.4}, [0.5, 1.0, 1.0, 1.0, 0.8, 0.6]),
        ("constant", {"decay_floor": 0.4}, [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_the_learning_rate_falls_to_its_floor(decay, options, expected):
    chosen = TrainOptions(steps=6, warmup_steps=2, learning_rate=1.0, decay=decay, **options)
    rates = [learning_rate(chosen, step) for step in range(6)]
    assert rates == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", ["decay_floor", "decay_share"])
def test_a_share_outside_of_0_to_1_is_refused(name):
    with pytest.raises(UsageError, match=f"train.{name} is 1.5; it must be at least 0 and at most"):
        TrainOptions(**{name: 1.5})
