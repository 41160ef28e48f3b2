"""Reading from left to right: any causal network can, and one with a cache is asked for it."""

import pytest
import torch
from torch import Tensor

from platform_core.backbone import Incremental, Reader, Rereader, reader
from platform_core.testing.toy import CausalNetwork
from platform_core.types import Hidden, Labels, Noise, Tokens


@pytest.fixture
def ids() -> Tensor:
    return torch.randint(5, (3, 6), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("sizes", [[6], [1] * 6, [2, 1, 3]])
@torch.no_grad()
def test_reading_in_parts_gives_the_features_of_the_whole(sizes: list[int], ids: Tensor) -> None:
    network = CausalNetwork(5)
    reading = reader(network, 6)
    assert isinstance(reading, Rereader)
    parts = [reading.read(part) for part in ids.split(sizes, dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), network.encode(ids, None))


class Remembering(CausalNetwork, Incremental):
    """A network with a cache of its own."""

    def reader(self, length: int, labels: Labels | None = None) -> Reader:
        return Cache(length)


class Cache(Reader):
    """Says how long a text it was made for."""

    def __init__(self, length: int) -> None:
        self.length = length

    def read(self, tokens: Tokens, sigma: Noise | None = None) -> Hidden:
        return torch.zeros(*tokens.shape, 8)

    def look(self, tokens: Tokens, sigma: Noise | None = None) -> Hidden:
        return self.read(tokens, sigma)


def test_a_network_with_a_cache_reads_with_it() -> None:
    reading = reader(Remembering(5), 6)
    assert isinstance(reading, Cache)
    assert reading.length == 6
