"""Checkpoints written beside the training, in a thread, or between two of its updates.

    save: wait for the one before -> copy all tensors -> a thread writes the folder -> rename

The thread writes what the training had at the step, byte for byte what would be written between
the updates. So a process that is killed meanwhile leaves the checkpoint before, and half a folder
that the next start removes. At most one checkpoint is being written at a time.
"""

import json
from collections.abc import Set
from threading import Thread

import torch
from torch import Tensor

from platform_core.runtime.checkpoint import Checkpoint, Checkpoints


class Saver:
    """Writes the checkpoints of a training.

    Args:
        checkpoints: where they are.
        beside: whether the training goes on meanwhile, for which all tensors are copied to the
            CPU's memory, 16 bytes for each weight under AdamW; else `save` returns once the
            checkpoint is written.
    """

    def __init__(self, checkpoints: Checkpoints, *, beside: bool) -> None:
        self.checkpoints, self.beside = checkpoints, beside
        self._thread: Thread | None = None
        self._error: Exception | None = None

    def save(self, step: int, checkpoint: Checkpoint, kept: Set[int]) -> None:
        """Writes a checkpoint, or begins to.

        Args:
            step: of the checkpoint.
            checkpoint: its tensors may change once this returns.
            kept: steps whose checkpoints are never deleted.

        Raises:
            CheckpointError: the checkpoint, or the one before, cannot be written.
            OSError: an old checkpoint cannot be removed.
        """
        self.wait()
        self.checkpoints.kept = set(kept)
        if not self.beside:
            self.checkpoints.save(step, checkpoint)
            return
        work = (step, copied(checkpoint))
        self._thread = Thread(target=self._write, args=work, name=Saver.__name__)
        self._thread.start()

    def check(self) -> None:
        """Raises the error of a checkpoint that could not be written; waits for none."""
        if self._error is not None:
            self.wait()

    def wait(self) -> None:
        """Waits until no checkpoint is being written.

        Raises:
            Exception: what `save` would have raised in the meantime; told once.
        """
        if self._thread is not None:
            self._thread.join()
        self._thread, error, self._error = None, self._error, None
        if error is not None:
            raise error

    def _write(self, step: int, checkpoint: Checkpoint) -> None:
        try:
            self.checkpoints.save(step, checkpoint)
        except Exception as error:  # of whatever kind, it is the training's
            self._error = error


def is_beside(writing: str, device: torch.device) -> bool:
    """Whether `--train.checkpoint_writing` asks for a thread: auto does so on a GPU, where updates
    need no core of the CPU.
    """
    return writing == "beside" or (writing == "auto" and device.type == "cuda")


def copied(checkpoint: Checkpoint) -> Checkpoint:
    """The same checkpoint in memory of its own, on the CPU."""
    tensors = {
        group: {name: _copy(tensor) for name, tensor in of_group.items()}
        for group, of_group in checkpoint.tensors.items()
    }
    return Checkpoint(tensors, json.loads(json.dumps(checkpoint.state)))


def _copy(tensor: Tensor) -> Tensor:
    copy = torch.empty(tensor.shape, dtype=tensor.dtype)
    return copy.copy_(tensor.detach())
