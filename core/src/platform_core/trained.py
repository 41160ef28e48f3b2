"""A trained network read back from its run directory, for evaluation and sampling."""

from accelerate import Accelerator

from platform_core.checkpoint import CheckpointError, Checkpoints, load_weights
from platform_core.compose import Built, Composition
from platform_core.directory import RunDirectory


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
    tensors = checkpoint.tensors["model" if average == "raw" else "ema"]
    load_weights(built.model.backbone, tensors, source=str(directory.checkpoints))
    built.objective.to(accelerator.device).eval()
    return built, int(checkpoint.state["step"])
