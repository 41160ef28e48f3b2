"""The order of trials, the end of a training, and the laws of all that the package brings."""

from pathlib import Path

import pytest
import yaml
from platform_lab.callback import LossBelow
from platform_lab.launcher import ByCost, cost

from platform_core.callback import Progress
from platform_core.testing import ContractTests
from platform_sweep.attempt import Task


class TestContract(ContractTests):
    plugin = "lab"


def task(sweep: Path, name: str, steps: int) -> Task:
    made = Task(sweep, name)
    config = made.directory.config(name)
    config.parent.mkdir(parents=True, exist_ok=True)
    train = {"steps": steps, "batch_size": 2}
    config.write_text(yaml.safe_dump({"train": train, "data": {"length": 8}}))
    return made


@pytest.mark.parametrize(("sign", "order"), [(1, "bac"), (-1, "cab")])
def test_trials_start_in_the_order_of_their_tokens(tmp_path, monkeypatch, sign, order):
    tasks = [task(tmp_path, name, steps) for name, steps in (("a", 5), ("b", 1), ("c", 9))]
    assert [cost(made) for made in tasks] == [80, 16, 144]
    launcher, queued = ByCost(1, sign), []
    monkeypatch.setattr(launcher.local, "start", queued.extend)
    launcher.start(tasks)
    assert "".join(made.name for made in queued) == order


def test_the_loss_has_to_stay_below():
    callback = LossBelow(loss=1.0, updates=2)
    losses = [2.0, 0.9, 1.0, 0.8, 0.7]
    said = [callback.after_update(Progress(n, 9, {"loss": x})).stop for n, x in enumerate(losses)]
    assert said == ["", "", "", "", "the loss was below 1 for 2 logged updates"]


@pytest.mark.parametrize("options", [{"loss": 0.0}, {"loss": float("nan")}, {"updates": 0}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} is"):
        LossBelow(**options)
