"""The negative log-likelihood is exact: by enumeration of laws and of networks."""

import pytest
import torch
from torch import Tensor, nn

from platform_ar.objective import NextTokenNll
from platform_ar.parameterization import NextToken
from platform_ar.process import Ar
from platform_core import rows
from platform_core.backbone import Backbone
from platform_core.data.tokenizer import CharacterTokenizer
from platform_core.draws import Draws
from platform_core.model import Model
from platform_core.schedule import LogLinear
from platform_core.testing.allocations import LargestTensor
from platform_core.testing.toy import CausalNetwork, ToyLaw, all_sequences, random_law
from platform_core.types import Batch, Hidden, Inputs, Noise

TOKENS = 4


class ExactNetwork(Backbone):
    """The conditionals of a law, read from its table; nonsense for the start."""

    def __init__(self, law: ToyLaw) -> None:
        super().__init__()
        self.law, self.identity = law, nn.Identity()

    @property
    def decoder(self) -> nn.Module:
        """Logits are ready after `encode`."""
        return self.identity

    def encode(self, inputs: Inputs, sigma: Noise | None) -> Hidden:
        """log p(next token | the tokens so far), float64."""
        assert sigma is None
        assert (inputs[:, 0] == self.law.num_tokens).all()
        batch = torch.arange(len(inputs))
        joint = self.law.probs.expand(len(inputs), *self.law.probs.shape)
        laws = []
        for place in range(inputs.shape[1]):
            joint = joint if place == 0 else joint[batch, inputs[:, place]]
            laws.append(joint.flatten(2).sum(-1) if joint.dim() > 2 else joint)
        law = torch.stack(laws, dim=1)
        log_law = (law / law.sum(-1, keepdim=True)).log()
        return nn.functional.pad(log_law, (0, 1), value=7.0)


def network(seed: int = 0) -> CausalNetwork:
    """Random weights, with a strong wish for the start."""
    torch.manual_seed(seed)
    made = CausalNetwork(TOKENS + 1)
    with torch.no_grad():
        made.head.weight.mul_(4)
        made.head.bias[TOKENS] += 5
    return made


def objective(backbone: Backbone, tokens: int = TOKENS) -> NextTokenNll:
    return NextTokenNll(Model(Ar(tokens), LogLinear(), NextToken(), backbone))


def draws(batch: int) -> Draws:
    return Draws.derive(0, step=0, first=0, total=batch)


def everything(x0: Tensor) -> Tensor:
    return torch.ones_like(x0, dtype=torch.bool)


@pytest.mark.parametrize("protocol", ["exact", "published"])
@pytest.mark.parametrize("length", [1, 2, 3])
def test_the_value_of_the_exact_network_is_minus_log_p(length: int, protocol: str) -> None:
    law = random_law(TOKENS, length, seed=3)
    x0 = law.sequences()
    loss = objective(ExactNetwork(law)).bound(Batch(x0, everything(x0)), draws(len(x0)), protocol)
    expected = -law.log_prob(x0)
    torch.testing.assert_close(loss.per_token.sum(1).double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(loss.total, expected.sum(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("length", [1, 2, 3])
@torch.no_grad()
def test_the_probabilities_of_all_sequences_sum_to_one(length: int) -> None:
    x0 = all_sequences(TOKENS, length)
    loss = objective(network().double()).bound(Batch(x0, everything(x0)), draws(len(x0)))
    assert (-loss.per_token.double().sum(1)).exp().sum().item() == pytest.approx(1, abs=1e-6)


@torch.no_grad()
def test_training_and_both_protocols_give_one_value_and_draw_nothing() -> None:
    x0 = all_sequences(TOKENS, 3)
    made, drawing = objective(network()), draws(len(x0))
    losses = [
        made(Batch(x0, everything(x0)), drawing),
        made.bound(Batch(x0, everything(x0)), drawing, "exact"),
        made.bound(Batch(x0, everything(x0)), drawing, "published"),
    ]
    for loss in losses:
        assert torch.equal(loss.total, losses[0].total)
        assert torch.equal(loss.per_token, losses[0].per_token)
    assert drawing.calls == 0


@torch.no_grad()
def test_every_token_counts_the_first_included_and_padding_does_not() -> None:
    x0 = all_sequences(TOKENS, 4)
    mask = everything(x0)
    mask[:, 3:] = False
    padded = objective(network()).bound(Batch(x0, mask), draws(len(x0)))
    alone = objective(network()).bound(Batch(x0[:, :3], mask[:, :3]), draws(len(x0)))
    assert (padded.per_token[:, :3] > 0).all()
    assert not padded.per_token[:, 3:].any()
    torch.testing.assert_close(padded.per_token[:, :3], alone.per_token)
    torch.testing.assert_close(padded.total, padded.per_token.double().sum())


@torch.no_grad()
def test_a_token_costs_the_same_whatever_comes_after_it() -> None:
    x0 = torch.randint(TOKENS, (8, 9), generator=torch.Generator().manual_seed(0))
    changed = x0.clone()
    changed[:, 5:] = (changed[:, 5:] + 1) % TOKENS
    made = objective(network())
    before, after = (made.bound(Batch(x, everything(x)), draws(8)).per_token for x in (x0, changed))
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert not torch.isclose(before[:, 5:], after[:, 5:]).all()


def test_no_token_of_the_vocabulary_stands_for_the_start() -> None:
    process = Ar(TOKENS)
    assert process.num_states == TOKENS + 1
    x0 = torch.tensor([[3, 0, 2], [1, 1, 0]])
    assert process.inputs(x0).tolist() == [[TOKENS, 3, 0], [TOKENS, 1, 1]]


def test_the_start_is_never_predicted_and_laws_are_at_least_float32() -> None:
    logits = torch.tensor([[1.0, 2.0, 90.0]], dtype=torch.bfloat16)
    law = NextToken().log_next(logits, Ar(2))
    torch.testing.assert_close(law, torch.tensor([[1.0, 2.0]]).log_softmax(-1))
    assert NextToken().log_next(logits.double(), Ar(2)).dtype == torch.float64


def test_gradients_are_those_of_the_dense_cross_entropy() -> None:
    x0 = torch.randint(TOKENS, (8, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.rand(8, 9, generator=torch.Generator().manual_seed(1)) < 0.8
    made = objective(network())
    parameters = list(made.parameters())
    by_rows = torch.autograd.grad(made(Batch(x0, mask), draws(8)).total, parameters)
    logits = made.model.backbone(made.predictor.process.inputs(x0), None)[..., :TOKENS]
    dense = nn.functional.cross_entropy(logits.flatten(0, 1), x0.flatten(), reduction="none")
    expected = torch.autograd.grad((dense * mask.flatten()).sum(), parameters)
    torch.testing.assert_close(by_rows, expected, rtol=1e-4, atol=1e-5)


def test_training_makes_no_tensor_of_all_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, batch, length = 500, 4, 32
    monkeypatch.setattr(rows, "CHUNK_ELEMENTS", 8 * tokens)
    made = objective(CausalNetwork(tokens + 1, width=4), tokens)
    x0 = torch.randint(tokens, (batch, length))
    with LargestTensor() as largest:
        made(Batch(x0, everything(x0)), draws(batch)).total.backward()
    assert largest.elements <= 8 * (tokens + 1)


def test_a_text_may_begin_with_a_token_of_the_vocabulary():
    x0 = torch.tensor([[0, 1, 2]])
    assert Ar(TOKENS).inputs(x0).tolist() == [[TOKENS, 0, 1]]
    assert Ar(TOKENS, start_id=3).inputs(x0).tolist() == [[3, 0, 1]]
    assert Ar(TOKENS, start_id=3).num_states == TOKENS + 1
    with pytest.raises(ValueError, match="start_id is -1"):
        Ar(TOKENS, start_id=-1)
    text = CharacterTokenizer("abc")
    assert Ar(text.vocab_size, start_id=text.vocab_size, tokenizer=text).start_id == text.vocab_size
    with pytest.raises(ValueError, match="start_id is 1000, and this text has tokens 0 to"):
        Ar(text.vocab_size, start_id=1000, tokenizer=text)
