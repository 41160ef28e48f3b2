"""Training: the learning rate, micro-batches, exact restoration, and what stops it."""

from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from short_training import OPTIONS, Sequences, flat

from platform_core.composition.options import TrainOptions
from platform_core.draws import Draws
from platform_core.errors import UsageError
from platform_core.model import Model
from platform_core.objective import Nelbo
from platform_core.parameterization import Mean
from platform_core.process import Absorbing
from platform_core.schedule import LogLinear
from platform_core.testing.toy import TinyNetwork
from platform_core.training.trainer import Trainer, learning_rate


class Ragged(Sequences):
    """The same, each sequence with another number of tokens that count, from none to all."""

    def __init__(self) -> None:
        super().__init__()
        self.mask = torch.arange(6) < (torch.arange(20) * 5 % 7)[:, None]


def trainer(options: TrainOptions = OPTIONS, split: Sequences | None = None) -> Trainer:
    torch.manual_seed(0)
    process = Absorbing(5, time_conditioned=True)
    model = Model(process, LogLinear(), Mean(), TinyNetwork(process.num_states))
    accelerator = Accelerator(cpu=True)
    return Trainer(Nelbo(model), split or Sequences(), options, accelerator=accelerator, seed=3)


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("cosine", [0.5, 1.0, 1.0, 0.853553, 0.5, 0.146447]),
    ],
)
def test_the_learning_rate_warms_up_and_decays(decay, expected):
    options = TrainOptions(steps=6, warmup_steps=2, learning_rate=1.0, decay=decay)
    rates = [learning_rate(options, step) for step in range(6)]
    assert rates == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
def test_training_lowers_the_bound():
    trained = trainer(TrainOptions(steps=60, batch_size=4, warmup_steps=2, learning_rate=1e-2))
    batch = trained.feed.split.batch(list(range(20)))

    def bound() -> float:
        draws = Draws.derive(0, step=0, first=0, total=20)
        return trained.objective.bound(batch, draws).per_token.sum().item()

    before = bound()
    for _ in range(60):
        trained.update()
    assert bound() < 0.9 * before


@pytest.mark.parametrize("accumulate", [2, 4])
def test_micro_batches_change_neither_draws_nor_what_is_counted(accumulate, monkeypatch):
    whole, parts = trainer(), trainer(replace(OPTIONS, accumulate=accumulate))
    read = {one: network_inputs(one, monkeypatch) for one in (whole, parts)}
    for _ in range(6):
        one, other = whole.update(), parts.update()
        assert one.tokens == other.tokens
        assert one.loss == pytest.approx(other.loss, rel=1e-6)
    assert parts.feed.micro_batch == 4 // accumulate
    for one, other in zip(
        zip(*read[whole], strict=True), zip(*read[parts], strict=True), strict=True
    ):
        assert torch.equal(torch.cat(one), torch.cat(other))


def network_inputs(trained: Trainer, monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """Noisy tokens and noise levels that the network is given, call by call."""
    backbone, read = trained.objective.model.backbone, []
    encode = backbone.encode

    def listen(inputs, sigma):
        read.append((inputs.clone(), sigma.clone()))
        return encode(inputs, sigma)

    monkeypatch.setattr(backbone, "encode", listen)
    return read


def test_a_micro_batch_weighs_as_many_tokens_as_it_has():
    """One batch, and the same with its first half masked out, then only that half: they add up."""
    trained = trainer(TrainOptions(steps=1, batch_size=4, accumulate=2, clip=1e9))
    batches = trained.feed.fetch(0).batches
    counted = sum(int(batch.mask.sum()) for batch in batches.values())
    gradients = []
    for first, batch in batches.items():
        trained.objective.zero_grad()
        trained._descend(batch, first, scale=torch.tensor(1 / counted))
        gradients.append([parameter.grad.clone() for parameter in trained.trained.values()])
    trained.objective.zero_grad()
    update = trained.update()
    total = torch.cat([(a + b).flatten() for a, b in zip(*gradients, strict=True)]).norm()
    assert update.gradient_norm == pytest.approx(float(total), rel=1e-5)


@pytest.mark.parametrize("accumulate", [2, 3, 6])
def test_every_token_of_a_step_weighs_the_same_in_whichever_micro_batch_it_is(accumulate: int):
    """Micro-batches of other numbers of tokens: the gradient is that of their sum over all."""
    options = TrainOptions(steps=1, batch_size=6, accumulate=accumulate, clip=1e9)
    trained = trainer(options, Ragged())
    batches = trained.feed.fetch(0).batches
    counts = [int(batch.mask.sum()) for batch in batches.values()]
    assert len(set(counts)) > 1
    total = torch.zeros((), dtype=torch.float64)
    for first, batch in batches.items():
        total += trained._descend(batch, first, scale=torch.tensor(1 / sum(counts)))
    expected = torch.cat([p.grad.flatten() for p in trained.trained.values()]).clone()
    trained.objective.zero_grad()
    seen: list[torch.Tensor] = []
    step = trained.optimizer.step

    def look() -> None:
        seen.append(torch.cat([p.grad.flatten() for p in trained.trained.values()]).clone())
        step()

    trained.optimizer.step = look
    update = trained.update()
    assert update.tokens == sum(counts)
    assert update.loss == pytest.approx(float(total) / sum(counts), rel=1e-6)
    torch.testing.assert_close(seen[0], expected)


def test_a_restored_trainer_goes_on_bit_for_bit():
    whole = trainer()
    for _ in range(3):
        whole.update()
    saved = whole.checkpoint()
    kept = {
        group: {name: tensor.detach().clone() for name, tensor in tensors.items()}
        for group, tensors in saved.tensors.items()
    }
    restored = trainer()
    restored.restore(type(saved)(kept, dict(saved.state)), source="memory")
    for _ in range(3):
        assert whole.update() == restored.update()
    assert torch.equal(flat(whole), flat(restored))
    for name, shadow in whole.ema.shadow.items():
        assert torch.equal(shadow, restored.ema.shadow[name])


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(UsageError, match="make it a multiple of 3"):
        trainer(TrainOptions(batch_size=4, accumulate=3))


def test_a_loss_that_is_not_finite_stops_before_the_weights_are_touched():
    trained = trainer()
    trained.update()
    before = flat(trained)
    with torch.no_grad():
        trained.objective.model.backbone.mixing.weight[0, 0] = torch.nan
    named = (
        "because the weight model.backbone.mixing.weight is not finite; lower --train.learning_r"
    )
    with pytest.raises(UsageError, match=named):
        trained.update()
    same = torch.isnan(flat(trained)) | (flat(trained) == before)
    assert same.all()


def test_no_checkpoint_is_made_of_weights_that_are_not_finite():
    trained = trainer()
    trained.update()
    with torch.no_grad():
        trained.objective.model.backbone.mixing.weight[0, 0] = torch.inf
    with pytest.raises(UsageError, match="step 1: the weight model.backbone.mixing.weight is not"):
        trained.checkpoint()


def test_activations_can_be_computed_again_only_where_the_blocks_are_known():
    with pytest.raises(UsageError, match="backbone TinyNetwork does not say what its blocks are"):
        trainer(replace(OPTIONS, checkpoint_activations=True))
