"""A training of a few steps on random sequences, for the tests of what drives one."""

import torch

from platform_core.composition.options import TrainOptions
from platform_core.training.trainer import Trainer
from platform_core.types import Batch

OPTIONS = TrainOptions(steps=6, batch_size=4, warmup_steps=2, precision="fp32")


class Sequences:
    """Random sequences, mostly of the first two of 5 tokens; the last is half padding."""

    def __init__(self) -> None:
        drawn = torch.randint(40, (20, 6), generator=torch.Generator().manual_seed(0))
        self.ids = torch.where(drawn < 5, drawn, drawn % 2)
        self.mask = torch.ones_like(self.ids, dtype=torch.bool)
        self.mask[-1, 3:] = False

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, rows):
        return Batch(self.ids[rows], self.mask[rows])

    def split(self, name):
        return self


def flat(trained: Trainer) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in trained.trained.values()])
