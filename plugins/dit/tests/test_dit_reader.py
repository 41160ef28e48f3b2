"""The causal network read position by position is the one that encodes whole texts."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from platform_core.backbone import reader
from platform_dit.attention import Sdpa
from platform_dit.backbone import CachedReader, Dit

CAUSAL = load_file(Path(__file__).parent / "golden" / "c_dit_causal.safetensors")
STATES, LENGTH = 19, 24


@pytest.fixture
def network() -> Dit:
    """A causal network with all weights random."""
    made = Dit(STATES, True, False, hidden_size=32, num_blocks=3, num_heads=2)
    generator = torch.Generator().manual_seed(0)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    return made.eval()


@pytest.fixture
def ids() -> Tensor:
    return torch.randint(STATES, (3, LENGTH), generator=torch.Generator().manual_seed(1))


def read(network: Dit, ids: Tensor, sizes: list[int]) -> Tensor:
    reading = reader(network, ids.shape[1])
    assert isinstance(reading, CachedReader)
    return torch.cat([reading.read(part) for part in ids.split(sizes, dim=1)], dim=1)


@pytest.mark.parametrize("sizes", [[LENGTH], [1] * LENGTH, [5, *[1] * 19], [2, 7, 1, 9, 5]])
@torch.no_grad()
def test_reading_in_parts_gives_the_features_of_the_whole(
    network: Dit, ids: Tensor, sizes: list[int]
) -> None:
    whole = network.encode(ids, None)
    torch.testing.assert_close(read(network, ids, sizes), whole, rtol=0, atol=1e-5)
    network.double()
    whole = network.encode(ids, None)
    torch.testing.assert_close(read(network, ids, sizes), whole, rtol=0, atol=1e-12)


@torch.no_grad()
def test_logits_read_token_by_token_are_the_published_ones() -> None:
    network = Dit(STATES, True, False, hidden_size=32, num_blocks=2, num_heads=2, cond_size=16)
    prefix = "c.params/param/"
    network.load_state_dict(
        {k.removeprefix(prefix): v for k, v in CAUSAL.items() if k.startswith(prefix)}
    )
    logits = network.decoder(read(network.eval(), CAUSAL["c.ids/input/ids"], [1] * 12))
    torch.testing.assert_close(logits, CAUSAL["c.ids/output/logits"], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_features_do_not_depend_on_the_room(network: Dit, ids: Tensor) -> None:
    roomy = reader(network, 10 * LENGTH).read(ids)
    torch.testing.assert_close(roomy, network.encode(ids, None), rtol=0, atol=1e-5)


@torch.no_grad()
def test_readers_are_independent(network: Dit, ids: Tensor) -> None:
    one, other = reader(network, LENGTH), reader(network, LENGTH)
    one.read(ids[:, :4])
    torch.testing.assert_close(other.read(ids[:1]), network.encode(ids[:1], None))
    torch.testing.assert_close(one.read(ids[:, 4:]), network.encode(ids, None)[:, 4:])


@torch.no_grad()
def test_reading_under_bfloat16_autocast_is_as_close_as_encoding(network: Dit, ids: Tensor) -> None:
    exact = network.encode(ids, None)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = read(network, ids, [1] * LENGTH)
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).norm() / exact.norm() < 0.05


@torch.no_grad()
def test_a_token_costs_a_position_and_not_a_text(network: Dit, ids: Tensor) -> None:
    positions = []
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.LayerNorm):
            layer.register_forward_hook(lambda _, args, __: positions.append(args[0].shape[1]))
    reading = reader(network, LENGTH)
    reading.read(ids[:, :5])
    assert set(positions) == {5}
    positions.clear()
    reading.read(ids[:, 5:6])
    assert set(positions) == {1}


@torch.no_grad()
def test_more_tokens_than_there_is_room_for_are_an_error(network: Dit, ids: Tensor) -> None:
    reading = reader(network, 3)
    reading.read(ids[:, :3])
    with pytest.raises(AssertionError, match="made for 3 tokens"):
        reading.read(ids[:, 3:4])


@pytest.mark.parametrize("queries", [1, 2, 5])
def test_fewer_queries_than_keys_are_the_last_ones(queries: int) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 5, 3, 8, generator=generator) for _ in range(3))
    whole = Sdpa()(query, key, value, causal=True)
    last = Sdpa()(query[:, -queries:], key, value, causal=True)
    torch.testing.assert_close(last, whole[:, -queries:])
