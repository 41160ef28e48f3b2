"""Checkpoints: complete or not there, noticed when damaged, refused when foreign."""

import json

import pytest
import torch
from safetensors.torch import save_file as real_save_file
from torch import nn

from platform_core.runtime import checkpoint as module
from platform_core.runtime.checkpoint import (
    Checkpoint,
    CheckpointError,
    Checkpoints,
    load_weights,
    weights,
)


def make(step: int) -> Checkpoint:
    return Checkpoint({"model": {"w": torch.full((4,), float(step))}}, {"step": step})


@pytest.fixture
def saved(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
    for step in (10, 20, 30):
        checkpoints.save(step, make(step))
    return checkpoints


def test_the_newest_is_loaded_and_only_the_last_are_kept(saved):
    loaded = saved.load()
    assert loaded.state["step"] == 30
    assert torch.equal(loaded.tensors["model"]["w"], torch.full((4,), 30.0))
    assert [folder.name for folder in sorted(saved.folder.iterdir())] == [
        "step-0000020",
        "step-0000030",
    ]


def test_no_checkpoint_at_all_is_none(tmp_path):
    assert Checkpoints(tmp_path / "nowhere", keep=1).load() is None


def truncate(file):
    file.write_bytes(file.read_bytes()[:-3])


def flip_a_bit(file):
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("model.safetensors", truncate),
        ("model.safetensors", flip_a_bit),
        ("model.safetensors", lambda file: file.unlink()),
        ("state.json", truncate),
        ("state.json", lambda file: file.write_text("{}")),
    ],
)
def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(saved, capsys, name, damage):
    damage(saved.folder / "step-0000030" / name)
    assert saved.load().state["step"] == 20
    assert "step-0000030 is damaged" in capsys.readouterr().err


def test_only_damaged_checkpoints_are_an_error_not_a_fresh_start(saved):
    for folder in saved.folder.iterdir():
        truncate(folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="no checkpoint can be read"):
        saved.load()


def test_a_full_disk_leaves_the_earlier_checkpoint_and_nothing_half_written(saved, monkeypatch):
    def full(tensors, file):
        real_save_file(tensors, file)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "save_file", full)
    with pytest.raises(CheckpointError, match=r"No space left.*step-0000030 is intact"):
        saved.save(40, make(40))
    assert saved.load().state["step"] == 30
    assert not list(saved.folder.glob(".*"))


def test_a_checkpoint_holds_json_and_safetensors_only(saved):
    folder = saved.folder / "step-0000030"
    assert {file.suffix for file in folder.iterdir()} == {".json", ".safetensors"}
    assert set(json.loads((folder / "state.json").read_text())) == {"step", "files", "digest"}


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.out = nn.Linear(3, 5, bias=False)
        self.out.weight = self.embed.weight
        self.register_buffer("scale", torch.ones(2))
        self.register_buffer("cache", torch.ones(2), persistent=False)


def test_weights_hold_tied_parameters_once_and_saved_buffers_only():
    assert set(weights(Tied())) == {"embed.weight", "scale"}


def test_weights_round_trip_into_another_module():
    source, target = Tied(), Tied()
    load_weights(target, {n: t.detach().clone() for n, t in weights(source).items()}, source="x")
    assert torch.equal(source.embed.weight, target.out.weight)


def test_weights_that_are_not_finite_are_refused_by_name():
    broken = {n: t.detach().clone() for n, t in weights(nn.Linear(2, 3)).items()}
    broken["bias"][1] = torch.nan
    with pytest.raises(CheckpointError, match="the weight bias is not finite"):
        load_weights(nn.Linear(2, 3), broken, source="x")


def test_weights_of_another_architecture_are_refused_by_name_or_shape():
    with pytest.raises(CheckpointError, match=r"another architecture: only this model .* bias"):
        load_weights(nn.Linear(2, 3), {"weight": torch.zeros(3, 2)}, source="x")
    with pytest.raises(CheckpointError, match=r"weight is \[3, 4\], not \[3, 2\]"):
        load_weights(nn.Linear(2, 3, bias=False), {"weight": torch.zeros(3, 4)}, source="x")


def test_checkpoints_are_ordered_by_number_whatever_its_length(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (9_999_998, 9_999_999, 10_000_000, 10_000_001):
        checkpoints.save(step, make(step))
        assert checkpoints.load().state["step"] == step
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-10000000", "step-10000001"]


def test_what_a_kill_before_pruning_left_is_removed(saved):
    kept = saved.keep
    saved.keep = 9
    saved.save(40, make(40))
    (saved.folder / ".step-0000050.partial").mkdir()
    saved.keep = kept
    saved.prune()
    assert [path.name for path in sorted(saved.folder.iterdir())] == [
        "step-0000030",
        "step-0000040",
    ]


@pytest.mark.parametrize("value", [-3, 9, True, None, "30", 30.0, 10**30, [], {}])
@pytest.mark.parametrize("signed", [True, False])
def test_a_step_that_is_not_the_folders_is_damage(saved, capsys, value, signed):
    file = saved.folder / "step-0000030" / "state.json"
    state = json.loads(file.read_text())
    state["step"] = value
    if not signed:  # as before there was a digest of the state
        del state["digest"]
    file.write_text(json.dumps(state))
    assert saved.load().state["step"] == 20
    assert "step-0000030 is damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "{}", "1", "[" * 3000, "\ufeff{}", '{"step": 30, "files": []}']
)
def test_a_state_of_another_form_is_damage(saved, capsys, text):
    (saved.folder / "step-0000030" / "state.json").write_text(text)
    assert saved.load().state["step"] == 20
    assert "step-0000030 is damaged" in capsys.readouterr().err
