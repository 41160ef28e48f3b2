"""Samples follow the network's own law, and a cache changes their cost alone."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from platform_ar.parameterization import NextToken
from platform_ar.process import Ar
from platform_ar.sampler import LeftToRight
from platform_core import rows
from platform_core.backbone import Backbone, Incremental, Reader, Rereader
from platform_core.errors import UsageError
from platform_core.model import Model
from platform_core.sampler import Prompt
from platform_core.schedule import LogLinear
from platform_core.testing.allocations import LargestTensor
from platform_core.testing.toy import CausalNetwork, all_sequences, chi_square, index_of, seeded
from platform_core.types import Hidden, Labels, Noise, Tokens

TOKENS, LENGTH = 4, 3

Change = Callable[[Tensor], Tensor]
"""Of one row of probabilities."""


def network() -> CausalNetwork:
    """Random weights, uneven laws, and a strong wish for the start."""
    torch.manual_seed(1)
    made = CausalNetwork(TOKENS + 1)
    with torch.no_grad():
        made.head.weight.mul_(3)
        made.head.bias[TOKENS] += 5
    return made


def model(backbone: Backbone, tokens: int = TOKENS) -> Model:
    return Model(Ar(tokens), LogLinear(), NextToken(), backbone)


def unchanged(row: Tensor) -> Tensor:
    return row


def tempered(temperature: float) -> Change:
    return lambda row: row ** (1 / temperature)


def keep(row: Tensor, number: int) -> Tensor:
    kept = row.argsort(descending=True)[:number]
    return torch.zeros_like(row).index_copy(0, kept, row[kept])


def most_likely(number: int) -> Change:
    return lambda row: keep(row, number)


def nucleus(top_p: float, *, crossing: str = "kept") -> Change:
    def change(row: Tensor) -> Tensor:
        mass = 0.0
        for number, chance in enumerate(sorted((row / row.sum()).tolist(), reverse=True)):
            mass += chance
            if mass > top_p:
                return keep(row, max(1, number + (crossing == "kept")))
        return row

    return change


def law(backbone: Backbone, change: Change = unchanged) -> Tensor:
    """The chance of every sequence, written out; the definition."""
    x0 = all_sequences(TOKENS, LENGTH)
    with torch.no_grad():
        logits = backbone(Ar(TOKENS).inputs(x0), None)[..., :TOKENS].double()
    changed = torch.stack([change(row) for row in logits.softmax(-1).flatten(0, 1)])
    changed = (changed / changed.sum(-1, keepdim=True)).view_as(logits)
    return changed.gather(-1, x0[..., None]).squeeze(-1).prod(1)


CASES: list[tuple[dict[str, object], Change]] = [
    ({}, unchanged),
    ({"temperature": 0.6}, tempered(0.6)),
    ({"temperature": 2.5}, tempered(2.5)),
    ({"top_k": 2}, most_likely(2)),
    ({"top_k": 1}, most_likely(1)),
    ({"top_p": 0.7}, nucleus(0.7)),
    ({"top_p": 0.7, "crossing": "dropped"}, nucleus(0.7, crossing="dropped")),
    (
        {"temperature": 1.5, "top_k": 3, "top_p": 0.8},
        lambda row: nucleus(0.8)(keep(tempered(1.5)(row), 3)),
    ),
]


@pytest.mark.parametrize(("options", "change"), CASES, ids=[str(options) for options, _ in CASES])
def test_samples_follow_the_enumerated_law(options: dict[str, object], change: Change) -> None:
    backbone = network()
    sample = LeftToRight(**options)(model(backbone), (20_000, LENGTH), seeded(3))
    assert chi_square(index_of(sample.tokens, TOKENS), law(backbone, change)) > 0.01


def test_the_options_of_the_cases_change_the_law() -> None:
    laws = [law(network(), change) for _, change in CASES]
    for index, one in enumerate(laws):
        for other in laws[:index]:
            assert (one - other).abs().sum() > 0.05


class Listening(CausalNetwork, Incremental):
    """Remembers how many positions each reading was of."""

    def __init__(self, num_states: int) -> None:
        super().__init__(num_states)
        self.sizes: list[int] = []

    def reader(self, length: int, labels: Labels | None = None) -> Reader:
        return _ListeningReader(self)


class _ListeningReader(Rereader):
    def __init__(self, network: Listening) -> None:
        super().__init__(network)
        self._sizes = network.sizes

    def read(self, tokens: Tokens, sigma: Noise | None = None) -> Hidden:
        self._sizes.append(tokens.shape[1])
        return super().read(tokens, sigma)


def beginning(number: int, length: int, batch: int = 2) -> Prompt:
    fixed = (torch.arange(length) < number).expand(batch, length)
    return Prompt(torch.randint(TOKENS, (batch, length), generator=seeded(5)), fixed)


@pytest.mark.parametrize(
    ("given", "sizes"), [(0, [1] * 6), (1, [2, *[1] * 4]), (4, [5, 1]), (5, [6]), (6, [])]
)
def test_a_token_costs_one_reading_of_one_position(given: int, sizes: list[int]) -> None:
    backbone = Listening(TOKENS + 1)
    sample = LeftToRight()(model(backbone), (2, 6), seeded(), beginning(given, 6))
    assert backbone.sizes == sizes
    assert sample.nfe == len(sizes)


@pytest.mark.parametrize("given", [0, 2])
def test_without_a_cache_a_token_costs_one_call(given: int) -> None:
    backbone = network()
    sample = LeftToRight()(model(backbone), (2, 6), seeded(), beginning(given, 6))
    assert sample.nfe == backbone.calls == 6 - given


@pytest.mark.parametrize("token", range(TOKENS))
def test_a_prompt_conditions_exactly(token: int) -> None:
    backbone = network()
    tokens = torch.full((10_000, LENGTH), token)
    fixed = (torch.arange(LENGTH) < 1).expand(10_000, LENGTH)
    sample = LeftToRight()(model(backbone), (10_000, LENGTH), seeded(7), Prompt(tokens, fixed))
    assert (sample.tokens[:, 0] == token).all()
    rest = law(backbone).view(TOKENS, -1)[token]
    assert chi_square(index_of(sample.tokens[:, 1:], TOKENS), rest / rest.sum()) > 0.01


def test_prompts_of_different_lengths_stay_in_place_and_as_they_were() -> None:
    lengths = torch.tensor([[0], [2], [5], [8]])
    tokens = torch.randint(TOKENS, (4, 8), generator=seeded(7))
    before = tokens.clone()
    prompt = Prompt(tokens, torch.arange(8) < lengths)
    sample = LeftToRight()(model(network()), (4, 8), seeded(), prompt)
    assert torch.equal(sample.tokens[prompt.fixed], tokens[prompt.fixed])
    assert not torch.equal(sample.tokens, tokens)
    assert torch.equal(tokens, before)


def test_tokens_to_the_right_of_a_blank_are_refused_with_what_can_fill_it() -> None:
    fixed = torch.tensor([[True, False, True]])
    with pytest.raises(UsageError, match="right of a blank; .* diffusion process, such as absor"):
        LeftToRight()(model(network()), (1, 3), seeded(), Prompt(torch.zeros(1, 3).long(), fixed))


def test_the_start_is_never_drawn_and_equal_seeds_draw_equal_samples() -> None:
    one, same, other = (
        LeftToRight()(model(network()), (32, 16), seeded(seed)).tokens for seed in (0, 0, 1)
    )
    assert one.max() < TOKENS
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_sampling_needs_no_gradient_and_no_tensor_of_all_logits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokens = 500
    monkeypatch.setattr(rows, "CHUNK_ELEMENTS", 8 * tokens)
    backbone = CausalNetwork(tokens + 1, width=4)
    with LargestTensor() as largest:
        LeftToRight(top_k=9, top_p=0.9)(model(backbone, tokens), (32, 4), seeded())
    assert largest.elements <= 8 * (tokens + 1)
    assert all(parameter.grad is None for parameter in backbone.parameters())


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("inf"), float("nan")])
def test_a_bad_temperature_is_refused_with_what_works(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature is .* above 0 .* take top_k 1"):
        LeftToRight(temperature=temperature)
