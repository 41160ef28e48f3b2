"""FLOP of a network, counted without computing; what a device can do; the profile of a training."""

import json

import pytest
import torch
from torch import nn

from platform_core.backbone import Backbone
from platform_core.runtime import speed
from platform_core.runtime.speed import peak_device_bytes, peak_flops, profiled, training_flops
from platform_core.testing.toy import TinyNetwork
from platform_core.training.progress import Work


class Layers(Backbone):
    """Two matrices, of which nothing is ever computed."""

    def __init__(self, *, labelled: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 8)
        self.layer, self.decode = nn.Linear(8, 8), nn.Linear(8, 7)
        self.labelled = labelled
        self.register_buffer("ones", torch.ones(8))

    @property
    def decoder(self) -> nn.Module:
        return self.decode

    def encode(self, inputs, sigma, labels=None):
        assert (labels is not None) == self.labelled
        assert inputs.device.type == "meta"
        return self.layer(self.embed(inputs)) * self.ones


class Reads(Layers):
    """Looks at its input, which has no values."""

    def encode(self, inputs, sigma, labels=None):
        assert inputs.max() > 0
        return super().encode(inputs, sigma, labels)


@pytest.mark.parametrize("labelled", [False, True])
def test_the_flops_of_a_token_are_those_of_the_matrices_three_times(labelled):
    network = Layers(labelled=labelled)
    found = training_flops(network, 5, time_conditioned=False, labelled=labelled)
    assert found == 3 * 2 * (8 * 8 + 8 * 7)


def test_a_network_that_is_told_the_noise_level_is_counted():
    found = training_flops(TinyNetwork(6), 4, time_conditioned=True)
    assert found is not None
    assert found > 0


def test_a_network_that_reads_its_input_is_not_counted():
    assert training_flops(Reads(), 5, time_conditioned=False) is None


def test_a_cpu_has_no_known_peak_and_no_memory_of_its_own():
    assert peak_flops(torch.device("cpu")) is None
    assert peak_device_bytes(torch.device("cpu")) is None


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12),
        ("Something else", None),
    ],
)
def test_a_gpu_is_known_by_its_name(name, peak, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert peak_flops(torch.device("cuda")) == peak


def test_the_utilisation_is_the_share_of_the_peak():
    metrics = Work(flops=6e12, peak=30e12).metrics(updates_per_second=2, waiting=0.25)
    assert metrics == {
        "data_share": 0.25,
        "flops_per_second": 12e12,
        "flops_utilisation": pytest.approx(0.4),
    }
    assert Work().metrics(2, 0.5) == {"data_share": 0.5}


def multiply():
    torch.ones(4, 4) @ torch.ones(4, 4)


def test_a_profile_is_of_the_updates_that_were_asked_for(tmp_path):
    with profiled(2, tmp_path / "profile") as updated:
        for _ in range(speed.SKIPPED + 3):
            multiply()
            updated()
    trace = json.loads((tmp_path / "profile/trace.json").read_text())
    names = [event.get("name") for event in trace["traceEvents"]]
    assert names.count("aten::mm") == 2
    assert "aten::mm" in (tmp_path / "profile/table.txt").read_text()


def test_a_training_that_ends_before_its_profile_begins_writes_none(tmp_path):
    with profiled(2, tmp_path / "profile") as updated:
        multiply()
        updated()
    assert not (tmp_path / "profile").exists()
    with profiled(0, tmp_path / "profile") as updated:
        updated()
    assert not (tmp_path / "profile").exists()
