"""Block diffusion with a network that has a cache, and from the command line."""

import pytest
import torch

from platform_blocks.sampler import Blocks
from platform_core.cli import main
from platform_core.model import Model
from platform_core.parameterization import Mean
from platform_core.process import Uniform
from platform_core.sampler import Ancestral
from platform_core.schedule import LogLinear
from platform_core.testing.toy import seeded
from platform_dit.backbone import Dit

STATES, LENGTH = 9, 10


def network():
    torch.manual_seed(0)
    built = Dit(STATES, False, True, hidden_size=16, num_blocks=2, num_heads=2, cond_size=8)
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return built.double().eval()


def sampled(cached, length=LENGTH, *, size=3, window=None, backbone=None):
    sampler = Blocks(Ancestral(4), length=LENGTH, block_size=size, window=window, cached=cached)
    shape = (5, length)
    model = Model(Uniform(STATES), LogLinear(), Mean(), backbone or network())
    return sampler(model, shape, seeded(4))


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 3, 5, 16])
def test_a_cache_changes_nothing(size):
    with_cache, without = (sampled(cached, size=size) for cached in (True, False))
    assert torch.equal(with_cache.tokens, without.tokens)
    assert with_cache.nfe == without.nfe


@pytest.mark.slow
@pytest.mark.parametrize("window", [3, 6, 10, None])
def test_texts_may_be_longer_than_those_of_training(window):
    with_cache, without = (sampled(cached, 31, window=window) for cached in (True, False))
    assert with_cache.tokens.shape == (5, 31)
    assert torch.equal(with_cache.tokens, without.tokens)


def test_a_step_costs_the_positions_of_a_block():
    backbone, positions = network(), []
    for layer in backbone.modules():
        if isinstance(layer, torch.nn.Linear) and layer.in_features == 16:
            layer.register_forward_hook(lambda _, args, __: positions.append(args[0].shape[-2]))
    sampled(True, backbone=backbone)
    assert max(positions) <= 15  # the decoder reads rows: those of a block of 5 texts


@pytest.mark.slow
def test_a_run_trains_is_measured_and_writes(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = """run --process mdlm --objective block-nelbo --objective.block_size 8 --sampler blocks
        --sampler.inner ordered --sampler.inner.at_once 2 --data.length 20 --train.steps 2
        --train.batch_size 4 --backbone.hidden_size 16 --backbone.num_blocks 1
        --evaluate.sequences 8 --evaluate.draws 2 --sample.number 1 --track.to none --output one"""
    assert main(words.split()) == 0
    assert "bits per character" in capsys.readouterr().out
    assert main(["sample", "one", "--sampler.inner", "first-hitting", "--sample.length", "50"]) == 0
    said = capsys.readouterr().err
    assert "network evaluations each" in said
    assert "sampler.inner is first-hitting; left out of one/config.yaml: sampler.inner.sc" in said
    assert main(["sample", "one", "--sampler.inner", "firsthitting"]) == 2
    assert "unknown sampler 'firsthitting'; did you mean first-hitting?" in capsys.readouterr().err
