"""A short training in one of several processes, whose figures are read at once or later.

    torchrun --nproc_per_node 2 two_processes.py FOLDER

One process meets a loss that is not finite; then none may move its weights. Writes what it found
into the folder: the figures of 6 updates read either way, and how the spoilt training ended.
"""

import json
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from short_training import OPTIONS, Sequences, flat

from platform_core.errors import UsageError
from platform_core.model import Model
from platform_core.objective import Nelbo
from platform_core.parameterization import Mean
from platform_core.process import Absorbing
from platform_core.schedule import LogLinear
from platform_core.testing.toy import TinyNetwork
from platform_core.training import deferred
from platform_core.training.trainer import Trainer

SPOILT = 3


def trainer(accelerator: Accelerator) -> Trainer:
    torch.manual_seed(0)
    process = Absorbing(5, time_conditioned=True)
    model = Model(process, LogLinear(), Mean(), TinyNetwork(process.num_states))
    return Trainer(Nelbo(model), Sequences(), OPTIONS, accelerator=accelerator, seed=3)


def spoil(trained: Trainer, rank: int) -> None:
    """The loss of one process is infinite at one update, with a gradient that is finite."""
    forward = trained.objective.forward

    def endless(batch, draws):
        loss = forward(batch, draws)
        spoilt = rank == 1 and draws.step == SPOILT
        return loss._replace(total=loss.total + torch.inf) if spoilt else loss

    trained.objective.forward = endless


def ended(trained: Trainer) -> list[object]:
    """The error of a training of which one update is not finite, and the weights it leaves."""
    try:
        for _ in range(6):
            trained.launch()
        trained.read()
    except UsageError as error:
        return [str(error).split(" and ")[0], trained.step, flat(trained).tolist()]
    return ["no error"]


def main(folder: Path) -> None:
    accelerator = Accelerator(cpu=True)
    rank, found = accelerator.process_index, {}
    for way, devices in (("later", {"cpu"}), ("once", set())):
        deferred.DEFERRED_ON = devices
        trained = trainer(accelerator)
        for _ in range(6):
            trained.launch()
        updates = trained.read()
        figures = [(one.loss, one.gradient_norm, one.tokens) for one in updates]
        trained = trainer(accelerator)
        spoil(trained, rank)
        found[way] = [figures, ended(trained)]
    (folder / f"{rank}.json").write_text(json.dumps(found))
    accelerator.end_training()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
