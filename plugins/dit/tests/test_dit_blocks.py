"""Blocks that are compiled one by one, and whose activations are computed again."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from dit_blocks import dit, read
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from platform_core.runtime import network
from platform_core.runtime.network import compile_networks
from platform_core.runtime.speed import training_flops
from platform_dit.backbone import Dit

CPU = torch.device("cpu")
both = pytest.mark.parametrize("causal", [False, True])


def kept(backbone: Dit, length: int = 64) -> int:
    """Bytes that a pass forwards keeps for the pass backwards, weights aside."""
    weights = {p.untyped_storage().data_ptr() for p in backbone.parameters()}
    found: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        hidden = backbone.encode(torch.zeros(2, length, dtype=torch.long), torch.ones(2, 1))
    assert hidden.requires_grad
    return sum(found.values())


@both
def test_activations_that_are_computed_again_give_the_same_gradients_to_the_bit(causal):
    backbone = dit(causal)
    hidden, gradients = read(backbone, causal)
    backbone.recomputes = True
    again, others = read(backbone, causal)
    assert torch.equal(hidden, again)
    assert all(torch.equal(one, other) for one, other in zip(gradients, others, strict=True))
    _, dropped = read(backbone, causal, seed=4)
    assert not torch.equal(gradients[0], dropped[0])  # dropout was there


def test_activations_that_are_computed_again_are_not_kept():
    backbone = dit(num_blocks=8)
    before = kept(backbone)
    backbone.recomputes = True
    assert kept(backbone) < 0.3 * before


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_blocks_have_the_features_and_gradients_of_the_network(backend):
    """In a process of its own, since types are not checked in compiled functions."""
    script = Path(__file__).with_name("dit_blocks.py")
    done = subprocess.run(
        [sys.executable, script, backend], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "causal True: 3 blocks alike\ncausal False: 3 blocks alike\n"


def test_a_network_is_compiled_where_it_pays_unless_told_otherwise(monkeypatch):
    def compiled(asked: bool | None) -> int:
        backbone = dit()
        compile_networks(backbone, asked, CPU)
        return sum(block._compiled_call_impl is not None for block in backbone.stacked())

    monkeypatch.setattr(network, "COMPILER", "eager")
    assert [compiled(asked) for asked in (None, False, True)] == [0, 0, 3]
    monkeypatch.setattr(network, "COMPILED_ON", {"cpu"})
    assert [compiled(asked) for asked in (None, False, True)] == [3, 0, 3]


def test_compiled_blocks_are_counted_and_read_from_left_to_right_as_they_were_written(monkeypatch):
    def never(*_: object) -> None:
        raise AssertionError("nothing is to be compiled")

    backbone = dit(causal=True, dropout=0.0).eval()
    expected = training_flops(backbone, 6, time_conditioned=False)
    ids = torch.arange(6)[None]
    with torch.no_grad():
        features = backbone.encode(ids, None)
    monkeypatch.setattr(network, "COMPILER", never)
    compile_networks(backbone, True, CPU)
    assert training_flops(backbone, 6, time_conditioned=False) == expected
    reader = backbone.reader(6)
    with torch.no_grad():
        found = torch.cat([reader.read(ids[:, place : place + 1]) for place in range(6)], dim=1)
    torch.testing.assert_close(found, features)
