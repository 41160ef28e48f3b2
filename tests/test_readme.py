"""What the README and the list of commands show works as it is written."""

import re
import shlex
from pathlib import Path

import pytest
import torch

from platform_core.cli import main, run
from platform_core.composition.compose import compose
from platform_core.registry.loading import find_plugins

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = (ROOT / "docs/commands.md").read_text()


def test_the_plugin_of_the_readme_composes(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    file = tmp_path / "my_plugin.py"
    file.write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    plugins = find_plugins({"PLATFORM_PLUGINS": str(file)})
    words = ["--process=duo", "--schedule=square"]
    composition, _ = compose(words, plugins, prog="test", environ={})
    schedule = composition.build(10).model.schedule
    t = torch.linspace(0.1, 0.9, 5, requires_grad=True)
    (slope,) = torch.autograd.grad(schedule.alpha(t).sum(), t)
    torch.testing.assert_close(schedule.slope(t), slope)
    torch.testing.assert_close(schedule.inverse(schedule.alpha(t)), t)


def test_the_mistake_of_the_readme_says_what_it_shows(capsys):
    shown = re.search(r"(platform run: error: .*?), …", README).group(1)
    assert main(["run", "--process", "dou"]) == 2
    assert capsys.readouterr().err.startswith(shown)


def commands_shown() -> list[str]:
    """The words after `platform run` in each indented line of both, its explanation left out."""
    lines = re.findall(r"^    platform run (\S.*)$", README + COMMANDS, re.MULTILINE)
    return [re.split(r"   +", line)[0] for line in lines if "--config" not in line]


@pytest.mark.parametrize("words", commands_shown())
def test_the_options_that_are_shown_exist(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    long, _ = compose([], find_plugins({}), prog="test", environ={})
    (tmp_path / "runs/long/checkpoints/step-0005000").mkdir(parents=True)
    (tmp_path / "runs/long/config.yaml").write_text(long.config)
    composition, _ = compose(
        shlex.split(words), find_plugins({}), prog="test", extend=run.arguments, environ={}
    )
    assert composition.config
