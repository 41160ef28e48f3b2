"""Trials on this machine, by the number of tokens that each trains on."""

from collections.abc import Sequence
from typing import final

import yaml

from platform_sweep.attempt import Task
from platform_sweep.launcher import Launcher, Local, Setting


@final
class ByCost(Launcher):
    """The platform's local launcher, given its tasks in another order.

    Args:
        jobs: trials at once.
        sign: 1 for cheap trials first, -1 for expensive ones.
    """

    interval = Local.interval

    def __init__(self, jobs: int, sign: int) -> None:
        self.local, self.sign = Local(jobs), sign

    def start(self, tasks: Sequence[Task]) -> None:
        """Queues the tasks; those of equal cost stay in the order of the sweep's file."""
        self.local.start(sorted(tasks, key=lambda task: self.sign * cost(task)))

    def poll(self) -> bool:
        """As the local launcher."""
        return self.local.poll()

    def stop(self) -> str:
        """As the local launcher."""
        return self.local.stop()

    def kill(self) -> None:
        """As the local launcher."""
        self.local.kill()


def cost(task: Task) -> int:
    """Tokens that a trial trains on, from its config."""
    config = yaml.safe_load(task.directory.config(task.name).read_text(encoding="utf-8"))
    train = config["train"]
    return int(train["steps"]) * int(train["batch_size"]) * int(config["data"]["length"])


def cheapest_first(setting: Setting) -> Launcher:
    """The launcher that `--launcher cheapest-first` names."""
    return ByCost(setting.jobs, 1)


def dearest_first(setting: Setting) -> Launcher:
    """The launcher that `--launcher dearest-first` names."""
    return ByCost(setting.jobs, -1)
