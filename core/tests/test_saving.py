"""Checkpoints that a thread writes: the same files, of the step they were asked at; errors told."""

import threading

import pytest
import torch

from platform_core.runtime import checkpoint as module
from platform_core.runtime.checkpoint import Checkpoint, CheckpointError, Checkpoints
from platform_core.runtime.saving import Saver, is_beside


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Gate:
    """Stands before each writing of a file of tensors, until it is opened."""

    def __init__(self, monkeypatch, *, fails=False):
        self.opened, self.reached = threading.Event(), threading.Event()
        save_file = module.save_file

        def waits(tensors, file):
            self.reached.set()
            assert self.opened.wait(30)
            if fails:
                raise OSError(28, "No space left on device")
            save_file(tensors, file)

        monkeypatch.setattr(module, "save_file", waits)


def make(step: int) -> Checkpoint:
    return Checkpoint({"model": {"w": torch.full((4,), float(step))}}, {"step": step})


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path / "checkpoints", keep=2)


def strided() -> dict[str, torch.Tensor]:
    """Tensors of several kinds, one of them not contiguous and one without dimensions."""
    numbers = torch.arange(12.0).view(3, 4)
    return {
        "w": numbers.T,
        "half": numbers.bfloat16(),
        "step": torch.tensor(7.0),
        "none": numbers[:0],
    }


def test_a_thread_writes_the_same_bytes(tmp_path):
    checkpoint = Checkpoint({"model": strided(), "ema": {}}, {"step": 3, "kept": {"x": 0.1}})
    found = []
    for name, beside in (("one", False), ("other", True)):
        saver = Saver(Checkpoints(tmp_path / name, keep=1), beside=beside)
        saver.save(3, checkpoint, set())
        saver.wait()
        found.append(files(saver.checkpoints.path(3)))
    assert found[0] == found[1]
    assert set(found[0]) == {"model.safetensors", "ema.safetensors", "state.json"}


def test_it_writes_what_there_was_at_the_step(checkpoints, monkeypatch):
    gate = Gate(monkeypatch)
    saver, weights, state = (
        Saver(checkpoints, beside=True),
        torch.zeros(3),
        {"step": 1, "seen": [1]},
    )
    saver.save(1, Checkpoint({"model": {"w": weights}}, state), set())
    assert gate.reached.wait(30)
    assert checkpoints.load() is None, "it is not there before it is whole"
    weights += 1
    state["seen"].append(2)
    gate.opened.set()
    saver.wait()
    loaded = checkpoints.load()
    assert torch.equal(loaded.tensors["model"]["w"], torch.zeros(3))
    assert loaded.state["seen"] == [1]


def test_one_is_written_at_a_time_and_old_ones_go(checkpoints):
    saver = Saver(checkpoints, beside=True)
    for step in (10, 20, 30, 40):
        saver.save(step, make(step), {10})
        assert len([each for each in threading.enumerate() if each.name == Saver.__name__]) <= 1
    saver.wait()
    names = sorted(path.name for path in checkpoints.folder.iterdir())
    assert names == ["step-0000010", "step-0000030", "step-0000040"]


@pytest.mark.parametrize("call", ["wait", "check", "save"])
def test_an_error_of_the_thread_is_raised_where_the_training_looks(checkpoints, monkeypatch, call):
    saver = Saver(checkpoints, beside=True)
    saver.save(10, make(10), set())
    saver.wait()
    gate = Gate(monkeypatch, fails=True)
    saver.save(20, make(20), set())
    saver.check()  # nothing is known yet, and it does not wait
    gate.opened.set()
    looks = {"wait": saver.wait, "save": lambda: saver.save(30, make(30), set())}
    if call == "check":
        for thread in threading.enumerate():
            if thread.name == Saver.__name__:
                thread.join(30)
    said = r"checkpoint of step 20 cannot be written \(No space left.*step-0000010 is intact"
    with pytest.raises(CheckpointError, match=said):
        looks.get(call, saver.check)()
    saver.wait()  # told once
    assert [path.name for path in checkpoints.folder.iterdir()] == ["step-0000010"]


def test_a_thread_writes_where_it_is_asked_for_or_on_a_gpu():
    found = {
        (writing, device): is_beside(writing, torch.device(device))
        for writing in ("auto", "beside", "between")
        for device in ("cpu", "cuda")
    }
    chosen = {("auto", "cuda"), ("beside", "cpu"), ("beside", "cuda")}
    assert {case for case, beside in found.items() if beside} == chosen
