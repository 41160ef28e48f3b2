"""Discrete consistency: which texts are compared, at which levels, and what the loss is."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from platform_core import rows
from platform_core.draws import Draws, derive_generator
from platform_core.parameterization import PredictsClean
from platform_core.process import Uniform
from platform_core.schedule import LogLinear
from platform_core.testing.allocations import LargestTensor
from platform_core.testing.golden import Golden
from platform_core.testing.toy import TinyNetwork, model
from platform_core.types import Batch
from platform_duo.objective import DiscreteConsistency
from platform_duo.process import Duo
from platform_duo.schedule import Gaussian
from platform_duo.trajectory import draw_trajectory

GOLDEN = Golden(Path(__file__).parent / "golden")
tensors = GOLDEN.tensors

STATES = 7


def consistency(num_states: int = STATES, **options) -> DiscreteConsistency:
    torch.manual_seed(0)
    return DiscreteConsistency(
        model(Duo(num_states), TinyNetwork(num_states), LogLinear(1e-3)), **options
    )


def texts(batch: int = 16, length: int = 6) -> tuple[Tensor, Tensor]:
    """Texts, and which of their tokens count."""
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randint(STATES, (batch, length), generator=generator)
    return x0, torch.rand(batch, length, generator=generator) < 0.8


def draws(step: int, total: int) -> Draws:
    return Draws.derive("test", step=step, first=0, total=total)


def other_weights(objective: DiscreteConsistency) -> None:
    with torch.no_grad():
        for parameter in objective.teacher.parameters():
            parameter.mul_(1.5)


@pytest.mark.parametrize("divergence", ["reverse-kl", "forward-kl"])
@pytest.mark.parametrize("step", [0, 3])
def test_the_loss_is_that_of_two_points_of_one_path_each_at_its_own_level(
    divergence: str, step: int
):
    objective = consistency(
        divergence=divergence, first_dt=0.2, round_steps=3, rounds=2, gamma_min=-3, gamma_max=0.5
    )
    other_weights(objective)
    (x0, mask), dt = texts(), 0.2 * 2 ** (step // 3)
    loss = objective(Batch(x0, mask), draws(step, 16))

    path, again = Gaussian(STATES, -3, 0.5), draws(step, 16)
    t = again.times(16, dt)
    assert dt <= t.min() < dt + 0.1 < 0.9 < t.max() <= 1
    trajectory = again.each(lambda row, g: draw_trajectory(row, STATES, g), x0)
    laws = []
    for network, time in ((objective.model, t), (objective.teacher, t - dt)):
        x = trajectory.at((-path.gamma(time) / 2).exp())
        logits = network.backbone(x, -path.alpha(time).log().float())
        laws.append(logits.log_softmax(-1))
    first, second = laws if divergence == "reverse-kl" else laws[::-1]
    expected = torch.where(mask, (first.exp() * (first - second)).sum(-1), 0.0)
    torch.testing.assert_close(loss.per_token, expected.detach(), rtol=1e-5, atol=1e-6)
    assert loss.total.item() == pytest.approx(expected.sum().item(), rel=1e-5)
    assert loss.per_token[mask].min() > 1e-4


def test_the_same_text_twice_teaches_nothing(monkeypatch: pytest.MonkeyPatch):
    objective, (x0, mask) = consistency(), texts()
    monkeypatch.setattr(type(objective.rounds), "dt", lambda *_: 0.0)
    loss = objective(Batch(x0, mask), draws(0, 16))
    assert loss.total.item() == 0
    loss.total.backward()
    gradients = [parameter.grad for parameter in objective.model.parameters()]
    assert max(float(gradient.abs().max()) for gradient in gradients) < 1e-6


def test_the_levels_of_the_reference_lie_one_step_apart_in_time():
    """Its times are shifted by dt and cut off at 1; between the ends that is the same pair."""
    case = tensors("l.trajectory")
    path, dt = Gaussian(19, -4, -1), case["dt"]
    t = (case["t"].double() + dt).clamp(0, 1)
    for time, name in ((t, "t"), (t - dt, "s")):
        torch.testing.assert_close(
            path.gamma(time), case[f"output/gamma_{name}"].double(), rtol=1e-6, atol=1e-6
        )
        torch.testing.assert_close(
            path.alpha(time), case[f"output/alpha_{name}"], rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("num_states", [2, 30, 50257])
def test_the_window_is_the_published_one_carried_over_to_the_vocabulary(num_states: int):
    path = consistency(num_states).path
    ends = path.alpha(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()
    assert ends == pytest.approx([0.99869414, 0.0061863085], abs=1e-8)
    if num_states == 50257:
        assert (path.gamma_min, path.gamma_max) == pytest.approx((-4, -1), abs=1e-6)


def test_a_training_step_makes_no_tensor_of_positions_by_states(monkeypatch: pytest.MonkeyPatch):
    objective = consistency(1008)
    x0 = torch.randint(1008, (16, 32), generator=derive_generator(0))
    monkeypatch.setattr(rows, "CHUNK_ELEMENTS", 6 * 1008)
    with LargestTensor() as made:
        objective(Batch(x0, torch.ones_like(x0, dtype=torch.bool)), draws(0, 16)).total.backward()
    # The widest are the 256 nodes of the quadrature, once for each text.
    assert made.elements < x0.numel() * 1008 / 50


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"gamma_min": 1.0, "gamma_max": 0.0}, "gamma_min is 1 and gamma_max 0"),
        ({"first_dt": 0.1}, "first_dt is 0.1; .* doubled 4 times"),
        ({"round_steps": 0}, "round_steps is 0"),
    ],
)
def test_options_that_cannot_be_are_refused(options, said: str):
    with pytest.raises(ValueError, match=said):
        consistency(**options)


def test_the_requirements_are_a_uniform_process_and_a_clean_prediction():
    assert DiscreteConsistency.requires == {"process": Uniform, "parameterization": PredictsClean}
