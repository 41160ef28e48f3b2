"""Checkpoints: tensors as safetensors and plain values as JSON, written atomically and verified.

    checkpoints/step-0001000/{model,ema,optimizer}.safetensors and state.json

A checkpoint is written to another directory, which is then renamed: a directory of this name is
complete or does not exist. `state.json` holds the digest of every file of tensors and of its own
values, so that a damaged checkpoint is noticed and the one before it is used.
"""

import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import load_file, save_file
from torch import nn

from platform_core.errors import UsageError
from platform_core.model import Tensors, first_not_finite, weights
from platform_core.record.files import WriteError, digest, digest_of, whole_folder
from platform_core.record.intact import OWN_DIGEST, intact_state

_DAMAGE = (OSError, ValueError, KeyError, safetensors.SafetensorError)


@dataclass(frozen=True)
class Checkpoint:
    """The contents of one checkpoint: groups of tensors by file name, and plain values."""

    tensors: Mapping[str, Tensors]
    state: Mapping[str, Any]


class CheckpointError(UsageError):
    """A checkpoint that cannot be written or read."""


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: directory of the checkpoints; made when the first checkpoint is written.
        keep: number of the latest checkpoints to keep.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self.keep = keep
        self.kept: set[int] = set()
        """Steps whose checkpoints are never deleted."""

    def save(self, step: int, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint; on failure nothing of it is left and earlier ones are intact.

        Raises:
            CheckpointError: the disk is full or cannot be written.
        """
        final = self.path(step)
        try:
            with whole_folder(final, replace=True) as folder:
                _write(folder, checkpoint)
        except (WriteError, safetensors.SafetensorError) as error:
            said = error.reason if isinstance(error, WriteError) else error
            left = next(iter(self._newest_first()), None)
            kept = f"{left} is intact" if left else "there is no earlier one"
            raise CheckpointError(
                f"the checkpoint of step {step} cannot be written ({said}); {kept}"
            ) from error
        self.prune()
        return final

    def prune(self) -> None:
        """Removes the checkpoints that are not to stay, and what a killed process left of one."""
        protected = {self.path(kept) for kept in self.kept}
        for old in list(self._newest_first())[self.keep :]:
            if old not in protected:
                shutil.rmtree(old)
        for half in self.folder.glob(".step-*.partial"):
            shutil.rmtree(half)

    def path(self, step: int) -> Path:
        """The directory of a step's checkpoint, which need not exist."""
        return self.folder / f"step-{step:07d}"

    def at(self, step: int) -> Checkpoint:
        """Read the checkpoint of a step.

        Raises:
            CheckpointError: the checkpoint is damaged or missing.
        """
        try:
            return _read(self.path(step), step)
        except _DAMAGE as error:
            raise CheckpointError(f"{self.path(step)} cannot be read: {error}") from error

    def load(self) -> Checkpoint | None:
        """Read the newest checkpoint that is not damaged; None if there are no checkpoints.

        Raises:
            CheckpointError: there are checkpoints, but every one of them is damaged.
        """
        damaged: list[str] = []
        for folder in self._newest_first():
            try:
                return _read(folder, step_of(folder))
            except _DAMAGE as error:
                damaged.append(f"{folder}: {error}")
                print(
                    f"platform: warning: {folder} is damaged ({error}); using the one before it",
                    file=sys.stderr,
                )
        if damaged:
            raise CheckpointError("no checkpoint can be read: " + "; ".join(damaged))
        return None

    def _newest_first(self) -> Iterator[Path]:
        yield from reversed(checkpoint_folders(self.folder))


def checkpoint_folders(folder: Path) -> list[Path]:
    """The checkpoints in a folder, in the order of their steps."""
    found = [path for path in folder.glob("step-*") if path.name[5:].isdecimal()]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """The step that the name of a checkpoint says."""
    return int(checkpoint.name[5:])


def load_weights(module: nn.Module, tensors: Tensors, *, source: str) -> None:
    """Copy saved tensors into a module.

    Raises:
        CheckpointError: the names or shapes are those of another architecture, or a weight is not
            finite.
    """
    own = weights(module)
    for name in sorted(own.keys() ^ tensors.keys()):
        raise CheckpointError(
            f"{source} is of another architecture: {_whose(name, own)} has the tensor {name}"
        )
    for name, tensor in own.items():
        if tensor.shape != tensors[name].shape:
            here, there = list(tensor.shape), list(tensors[name].shape)
            raise CheckpointError(
                f"{source} is of another architecture: {name} is {there}, not {here}"
            )
    if (wrong := first_not_finite(tensors)) is not None:
        raise CheckpointError(
            f"{source} holds a network that has diverged: the weight {wrong} is not finite (NaN or "
            "infinite), so it neither writes nor can be measured; take an earlier checkpoint, or "
            "train again with a lower --train.learning_rate"
        )
    for name, tensor in own.items():
        tensor.data.copy_(tensors[name])


def _whose(name: str, own: Tensors) -> str:
    return "only this model" if name in own else "only the file"


def _write(folder: Path, checkpoint: Checkpoint) -> None:
    digests = {}
    for group, tensors in checkpoint.tensors.items():
        file = folder / f"{group}.safetensors"
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, file
        )
        digests[file.name] = digest(file)
    state = json.loads(json.dumps({**checkpoint.state, "files": digests}))
    with (folder / "state.json").open("w") as stream:
        json.dump({**state, OWN_DIGEST: digest_of(state)}, stream, indent=1)


def _read(folder: Path, step: int) -> Checkpoint:
    """The checkpoint in a folder whose name says a step; raises one of `_DAMAGE`."""
    state, files = intact_state(folder, step)
    return Checkpoint({file.stem: load_file(file) for file in files}, state)
