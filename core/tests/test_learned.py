"""Parts with weights: the gradient of the noise's law, by enumeration, and what is refused."""

import pytest
import torch
from torch import nn

from platform_core.draws import Draws
from platform_core.errors import UsageError
from platform_core.objective import Nelbo
from platform_core.process import Absorbing, Uniform
from platform_core.schedule import LogLinear, Schedule, Stepwise
from platform_core.testing.learned import derivatives
from platform_core.testing.toy import TinyNetwork, double, model
from platform_core.types import Batch


class Learned(Schedule, nn.Module):
    """alpha = (1 - t)^p with p learned."""

    def __init__(self) -> None:
        super().__init__()
        self.log_power = nn.Parameter(double(0.2).squeeze())

    def alpha(self, t):
        return (1 - t) ** self.log_power.exp()

    def slope(self, t):
        power = self.log_power.exp()
        return -power * (1 - t) ** (power - 1)

    def inverse(self, alpha):
        return 1 - alpha ** (1 / self.log_power.exp())


def batch(*tokens: int) -> Batch:
    x0 = torch.tensor([tokens])
    return Batch(x0, torch.ones_like(x0, dtype=torch.bool))


@pytest.mark.parametrize("process", [Absorbing(2, time_conditioned=True), Uniform(2)])
def test_training_gives_the_derivative_of_the_mean_loss_around_given_tokens(process):
    torch.manual_seed(0)
    built = model(process, TinyNetwork(process.num_states), Learned()).double()
    text = batch(0, 1, 1)
    given = torch.tensor([[False, False, True]])
    for counted in ([[True, True, False]], [[True, False, False]]):
        some = text._replace(mask=torch.tensor(counted), given=given)
        found, expected = derivatives(Nelbo(built), some, double(0.4)[None])
        assert abs(expected) > 1e-3
        assert found == pytest.approx(expected, rel=1e-6)


def test_the_second_noisy_text_costs_nothing_where_nothing_is_learned():
    calls = []
    built = model(Absorbing(2), TinyNetwork(3)).watched(lambda inputs, level: calls.append(1))
    draws = Draws.derive(0, step=0, first=0, total=1)
    Nelbo(built)(batch(0, 1), draws)
    assert len(calls) == 1
    learned = model(Absorbing(2), TinyNetwork(3), Learned()).watched(built.watch)
    Nelbo(learned)(batch(0, 1), draws)
    assert len(calls) == 3
    learned.schedule.requires_grad_(False)
    Nelbo(learned)(batch(0, 1), draws)
    assert len(calls) == 4


class Soft(Nelbo):
    """The network reads a mixture of tokens."""

    def noised(self, x0, draws):
        noised = super().noised(x0, draws)
        return noised._replace(inputs=nn.functional.one_hot(noised.x_t, 3).float())


def test_inputs_that_are_no_noisy_tokens_are_refused_with_learned_noise():
    objective = Soft(model(Absorbing(2), TinyNetwork(3), Learned()))
    with pytest.raises(UsageError, match="objective Soft lets the network read something else"):
        objective(batch(0, 1), Draws.derive(0, step=0, first=0, total=1))


def test_stepwise_follows_a_schedule_while_it_is_trained():
    inner = Learned()
    steps = Stepwise(inner, 4)
    before = steps.alpha(double(0.5))
    before.sum().backward()
    assert inner.log_power.grad.abs() > 0.1
    inner.log_power.data += 1
    torch.testing.assert_close(steps.alpha(double(0.5)), inner.alpha(double(0.5)))
    assert steps.alpha(double(0.5)) < before


class Outside(LogLinear):
    """A schedule that holds weights without being a module."""

    def __init__(self, held: object) -> None:
        super().__init__()
        self.curve = held


@pytest.mark.parametrize("held", [nn.Linear(1, 1), torch.zeros(1, requires_grad=True)])
def test_weights_that_nobody_would_train_are_refused(held):
    with pytest.raises(UsageError, match="the schedule Outside has weights in its attribute curve"):
        model(Absorbing(2), TinyNetwork(3), Outside(held))
    model(Absorbing(2), TinyNetwork(3), Outside(torch.zeros(1)))
