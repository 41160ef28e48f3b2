"""A trained network read back from its run directory: for evaluation, sampling and new training."""

from pathlib import Path
from typing import Any

from accelerate import Accelerator

from platform_core.checkpoint import CheckpointError, Checkpoints, load_weights
from platform_core.compose import Built, Composition
from platform_core.directory import RunDirectory
from platform_core.files import digest
from platform_core.model import Model
from platform_core.options import InitOptions


def load_trained(
    composition: Composition,
    directory: RunDirectory,
    accelerator: Accelerator,
    *,
    vocab_size: int,
    average: str,
) -> tuple[Built, int]:
    """The parts of a run with the weights of its newest whole checkpoint, and that one's step.

    Args:
        composition: the run's own, with other options of evaluation or sampling if wanted.
        directory: of the run.
        accelerator: whose device the network goes to.
        vocab_size: of the run's tokenizer.
        average: "ema" for the average of the weights, "raw" for the last ones.

    Raises:
        CheckpointError: there is no checkpoint, none is whole, or it is of another architecture.
    """
    checkpoint = Checkpoints(directory.checkpoints, keep=1).load()
    if checkpoint is None:
        raise CheckpointError(
            f"{directory.path} has no checkpoint yet; continue it with --resume {directory.path}"
        )
    built = composition.build(vocab_size, len(directory.label_names()))
    load_weights(
        built.model.backbone, checkpoint.tensors[_GROUP[average]], source=str(directory.checkpoints)
    )
    built.objective.to(accelerator.device).eval()
    return built, int(checkpoint.state["step"])


def load_start(model: Model, start: InitOptions) -> dict[str, Any]:
    """Gives a model the weights that `--init` asks for, and says which they are.

    Args:
        model: as it comes out of composition.
        start: a run and the step of its checkpoint, both settled.

    Raises:
        CheckpointError: the checkpoint is gone or damaged, or it is of another architecture.
    """
    assert start.run is not None, "without a run there is no start"
    assert start.step is not None, "composition settles it"
    checkpoints = Checkpoints(RunDirectory(Path(start.run)).checkpoints, keep=1)
    group = _GROUP[start.weights]
    tensors = checkpoints.at(start.step).tensors[group]
    load_weights(model.backbone, tensors, source=str(checkpoints.path(start.step)))
    file = weights_file(checkpoints.path(start.step), start.weights)
    return {"run": start.run, "step": start.step, "weights": start.weights, "digest": digest(file)}


def weights_file(checkpoint: Path, average: str) -> Path:
    """The file of a checkpoint with the average of the weights (ema), or the last ones (raw)."""
    return checkpoint / f"{_GROUP[average]}.safetensors"


_GROUP = {"ema": "ema", "raw": "model"}
"""Tensors of a checkpoint, and their file: the average of the weights, or the last ones."""
