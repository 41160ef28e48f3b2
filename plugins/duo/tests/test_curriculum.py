"""The curriculum: its loss is what it says, and the bound stays the bound at every step."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from platform_core import rows
from platform_core.cli import main
from platform_core.draws import Draws
from platform_core.model import Model
from platform_core.testing.allocations import LargestTensor
from platform_core.testing.golden import Golden
from platform_core.testing.objective import AtOnce
from platform_core.testing.stubs import Small
from platform_core.testing.toy import (
    ExactDenoiser,
    TinyNetwork,
    all_sequences,
    integrated_bound,
    model,
    one_token_law,
    random_law,
    tanh_sinh,
    transition,
    two_token_law,
)
from platform_core.types import Batch, Inputs, TopTokens
from platform_duo import gaussian
from platform_duo.curriculum import Curriculum, Temperature
from platform_duo.objective import UniformNelbo
from platform_duo.process import Duo
from platform_duo.relaxation import Relaxation, SoftTokens
from platform_duo.schedule import Gaussian

GOLDEN = Golden(Path(__file__).parent / "golden")
tensors = GOLDEN.tensors

STATES = 7
FORMS: list[dict[str, Any]] = [{}, {"top_k": 2}, {"top_k": 5}, {"top_k": 2, "argmax": "in-top-k"}]
every_form = pytest.mark.parametrize("options", FORMS, ids=str)


def tiny_model(num_states: int = STATES) -> Model:
    """Its parameters are random throughout, and large enough to matter."""
    torch.manual_seed(0)
    process = Duo(num_states)
    network = tiny_network(process)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model(process, network)


def tiny_network(process: Duo) -> Small:
    return Small(process.num_states, causal=False, time_conditioned=True, hidden_size=16)


def batch(num_states: int = STATES) -> Batch:
    x0 = torch.randint(num_states, (6, 8), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(x0, dtype=torch.bool)
    mask[-1, 4:] = False
    return Batch(x0, mask)


def draws(step: int, *, total: int = 6) -> Draws:
    return Draws.derive("test", step=step, first=0, total=total)


@every_form
def test_from_the_end_on_the_loss_is_that_of_the_bound_bit_for_bit(options: dict[str, Any]):
    one = tiny_model()
    curriculum, plain = Curriculum(one, end=10, **options), UniformNelbo(one)
    for step in (10, 11, 1000):
        found, expected = (o(batch(), draws(step)) for o in (curriculum, plain))
        assert found.total.equal(expected.total)
        assert found.per_token.equal(expected.per_token)
    before = [o(batch(), draws(9)).total for o in (curriculum, plain)]
    assert not before[0].equal(before[1])


@every_form
@pytest.mark.parametrize("protocol", ["exact", "published"])
def test_the_bound_is_that_of_hard_tokens_at_every_step_bit_for_bit(options, protocol):
    one = tiny_model()
    curriculum, plain = Curriculum(one, end=10, **options), UniformNelbo(one)
    for step in (0, 9, 10):
        found, expected = (o.bound(batch(), draws(step), protocol) for o in (curriculum, plain))
        assert found.total.equal(expected.total)
        assert found.per_token.equal(expected.per_token)


@every_form
def test_the_loss_and_its_gradients_are_finite_and_of_counted_tokens(options: dict[str, Any]):
    one = tiny_model()
    x0, mask, *_ = batch()
    loss = Curriculum(one, **options)(Batch(x0, mask), draws(0))
    loss.total.backward()
    assert loss.total.item() == pytest.approx(loss.per_token.double().sum().item(), rel=1e-6)
    assert (loss.per_token[~mask] == 0).all()
    assert (loss.per_token[mask] > 0).all()
    gradients = [parameter.grad for parameter in one.backbone.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    assert one.backbone.embedding.weight.grad.abs().sum() > 0


class Blind(TinyNetwork):
    """A network whose prediction is always the same, whatever it reads."""

    def __init__(self, law: Tensor) -> None:
        super().__init__(len(law), 1)
        self.logits, self.identity = law.log(), torch.nn.Identity()

    @property
    def decoder(self) -> torch.nn.Module:
        return self.identity

    def encode(self, inputs: Inputs, sigma: Tensor | None) -> Tensor:
        shape = inputs.ids.shape[:2] if isinstance(inputs, TopTokens) else inputs.shape[:2]
        return self.logits.expand(*shape, -1)


@pytest.mark.slow
@pytest.mark.parametrize("options", FORMS[:3], ids=str)
def test_predictions_that_ignore_the_input_cost_the_bound_of_the_window(options: dict[str, Any]):
    """To 3.5 standard errors of 200,000 tokens; the reference's argmax misses by 50."""
    law = random_law(STATES, 1, seed=3)
    plain = UniformNelbo(model(Duo(STATES), ExactDenoiser(law, Duo(STATES))))
    ends = gaussian.window(STATES, 0.95, 0.05)
    high, low = gaussian.signal(torch.tensor(ends, dtype=torch.float64), STATES).tolist()
    clean = 2
    expected = integrated_bound(plain, torch.tensor([[clean]]), low, high).item()
    blind = model(Duo(STATES), Blind(law.probs))
    x0 = torch.full((200, 1000), clean)

    def deviation(**others: Any) -> float:
        objective = Curriculum(blind, t_min=0.0, **others)
        per_token = objective(Batch(x0, torch.ones_like(x0).bool()), draws(0, total=200)).per_token
        means = per_token.double().mean(1)
        # Times are stratified, so the error of the mean is less than this.
        noise = per_token.double().var(1).mean().item() / per_token.numel()
        assert means.numel() == 200
        return (means.mean().item() - expected) / noise**0.5

    assert abs(deviation(**options)) < 3.5
    if options:
        assert abs(deviation(**options, argmax="in-top-k")) > 10


class Enumerated(Relaxation):
    """Hands out given noisy tokens, softened to one-hot vectors."""

    def __init__(self, x_t: Tensor, num_states: int) -> None:
        self.x_t, self.num_states = x_t, num_states

    def draw(self, x0: Tensor, gamma: Tensor, tau: float, generator: torch.Generator) -> SoftTokens:
        one_hot = torch.nn.functional.one_hot(self.x_t, self.num_states)
        return SoftTokens(one_hot.double(), self.x_t)


class ReadsVectors(ExactDenoiser):
    """The exact network, for one-hot vectors."""

    def encode(self, inputs: Inputs, sigma: Tensor | None) -> Tensor:
        return super().encode(inputs.argmax(-1), sigma)


def test_with_one_hot_vectors_and_all_levels_the_curriculum_is_the_bound():
    """The law of x_t from the operator, time by quadrature: nothing is drawn."""
    law, process = two_token_law(), Duo(3)
    ends = gaussian.window(3, 1 - 1e-13, 1e-13)
    objective = Curriculum(
        model(process, ReadsVectors(law, process)),
        t_min=0.0,
        gamma_min=ends[0],
        gamma_max=ends[1],
    )
    nodes, weights = tanh_sinh(1 / 64)
    states = all_sequences(3, 2)
    x_t = states.repeat(len(nodes), 1)
    t = nodes.repeat_interleave(len(states))[:, None]
    objective.relaxation = Enumerated(x_t, 3)
    given = replace_times(draws(0), t)
    for clean in law.sequences()[::4]:
        x0 = clean.expand_as(x_t)
        with torch.no_grad():
            f = objective(Batch(x0, torch.ones_like(x0).bool()), given).per_token.double().sum(-1)
        chance = transition(process, x0, x_t, objective.gaussian.alpha(t)).prod(-1)
        value = (weights.repeat_interleave(len(states)) * chance * f).sum().item()
        # The network is told no level below 1e-4.
        assert value == pytest.approx(-law.log_prob(clean[None]).item(), rel=2e-5)


def replace_times(one: Draws, t: Tensor) -> Draws:
    given = AtOnce(one.seed, one.step, one.first, one.total, one.shift, one.device)
    given.times = lambda batch, t_min=0.0: t  # type: ignore[method-assign]
    return given


def test_the_temperature_is_the_reference_s_until_its_curriculum_ends():
    """From then on the reference divides by 1e-10; here tau stays what it has become."""
    case, temperature = tensors("j.tau"), Temperature(1e-1, 1e-2, 100, 300)
    steps = case["step"].tolist()
    assert min(steps) < 100 < 300 <= max(steps)
    for step, inverse in zip(steps, case["output/inv_tau"].tolist(), strict=True):
        expected = inverse if step < 300 else 100
        assert 1 / temperature.at(step) == pytest.approx(expected, rel=1e-12)


def test_a_temperature_that_jumps_has_its_last_value_from_that_step_on():
    temperature = Temperature(1e-1, 1e-2, 5, 5)
    assert [temperature.at(step) for step in (0, 4, 5, 6)] == pytest.approx([0.1, 0.1, 1e-2, 1e-2])


def test_tau_follows_the_step(monkeypatch: pytest.MonkeyPatch):
    objective = Curriculum(tiny_model(), end=100, tau_start=1e-1, tau_end=1e-3, tau_from=20)
    taus = []
    draw = objective.relaxation.draw
    monkeypatch.setattr(objective.relaxation, "draw", lambda *a: (taus.append(a[2]), draw(*a))[1])
    for step in (0, 20, 60, 99, 100):
        objective(batch(), AtOnce.derive("test", step=step, first=0, total=6))
    assert taus == pytest.approx([1e-1, 1e-1, 1e-2, 10 ** (-1 - 2 * 79 / 80)])


def test_the_levels_are_those_of_the_schedule_gaussian():
    objective = Curriculum(tiny_model(), gamma_min=-3, gamma_max=1)
    schedule, t = Gaussian(STATES, -3, 1), draws(0).times(6, 1e-3)
    _, _, alpha, slope = objective.noised(batch().x0, draws(0))
    assert alpha.equal(schedule.alpha(t))
    assert slope.equal(schedule.slope(t))


@pytest.mark.slow
def test_with_top_k_a_training_step_makes_no_tensor_of_positions_by_states(monkeypatch):
    objective = Curriculum(tiny_model(1008), top_k=2)
    x0 = torch.randint(1008, (16, 32), generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(rows, "CHUNK_ELEMENTS", 6 * 1008)
    with LargestTensor() as made:
        objective(Batch(x0, torch.ones_like(x0).bool()), draws(0, total=16)).total.backward()
    assert made.elements < x0.numel() * 1008 / 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"end": -1}, "end is -1; it must be at least 0"),
        ({"tau_start": 0.0}, "tau_start is 0 and tau_end 0.001; both must be above 0"),
        ({"tau_end": math.inf}, "tau_start is 0.001 and tau_end inf; both must be above 0"),
        ({"tau_from": -1}, "tau_from is -1 and tau_until 400, but 0 <= tau_from <= tau_until"),
        ({"end": 5, "tau_from": 6}, "tau_from is 6 and tau_until 5"),
        ({"top_k": 1}, "top_k is 1; it must be at least 2"),
        ({"argmax": "in-top-k"}, "argmax in-top-k needs top_k; give top_k, for example 2"),
        ({"gamma_min": 2.0, "gamma_max": 1.0}, "gamma_min is 2 and gamma_max 1, but"),
        ({"t_min": 1.0}, "t_min is 1; it must be"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        Curriculum(tiny_model(), **options)


@pytest.mark.slow
def test_predictions_of_one_token_are_no_worse_for_a_curriculum():
    """A smoke test of both forms: 30 updates from the same weights lower the bound."""
    law = one_token_law()
    x0 = law.sequences().repeat(6, 4)
    for options in ({}, {"top_k": 2}):
        one = tiny_model(3)
        objective = Curriculum(one, end=100, **options)
        optimizer = torch.optim.Adam(one.backbone.parameters(), 1e-2)
        mask = torch.ones_like(x0).bool()
        before = objective.bound(Batch(x0, mask), draws(0, total=18)).total.item()
        for step in range(30):
            optimizer.zero_grad()
            (objective(Batch(x0, mask), draws(step, total=18)).total / x0.numel()).backward()
            optimizer.step()
        assert objective.bound(Batch(x0, mask), draws(0, total=18)).total.item() < before


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--objective.top_k=2"]], ids=["dense", "2"])
def test_it_trains_from_the_command_line(
    options: list[str], stub_parts, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("PLATFORM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "words.txt").write_text("we the people of these united states " * 60)
    words = [
        "run", "--process=duo", "--objective=curriculum", "--objective.end=3", *options,
        "--schedule=gaussian", "--backbone=small", "--backbone.hidden_size=16",
        "--data.corpus=text",
        f"--data.path={tmp_path / 'words.txt'}", "--data.length=16", "--train.steps=5",
        "--train.batch_size=4", "--evaluate.on_the_way=4", "--evaluate.sequences=8",
        "--sample.number=1", "--sampler.steps=3", "--track.aim=false",
        f"--output={tmp_path / 'run'}",
    ]  # fmt: skip
    assert main(words) == 0
    assert (tmp_path / "run" / "result.json").exists()
    assert "perplexity" in capsys.readouterr().out
