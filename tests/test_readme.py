"""What the README and the list of commands show works as it is written."""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import forked
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


SMALL = (  # noqa: SIM905
    "--backbone.hidden_size=16 --backbone.num_blocks=1 --backbone.num_heads=2 "
    "--backbone.cond_size=8 --data.length=32 --train.steps=2 --train.batch_size=2 "
    "--train.checkpoint_every=1 --evaluate.sequences=4 --evaluate.on_the_way=2 --sample.number=2 "
    "--sampler.steps=2"
).split()
"""Options of a run that takes a second."""

FILES = {
    "my.txt": "we the people of the united states " * 200,
    "my/a.jsonl": '{"body": "we the people of the united states"}\n' * 100,
    "pairs.jsonl": '{"prompt": "1 + 1 =", "answer": "2"}\n' * 100,
    "my.jsonl": '{"text": "we the people of the united states"}\n' * 100,
    "study.yaml": "base: small.yaml\naxes: {process: [duo, mdlm]}\nseeds: 2\n",
    "small.yaml": (
        "backbone: {hidden_size: 16, num_blocks: 1, num_heads: 2, cond_size: 8}\n"
        "data: {length: 32}\ntrain: {steps: 2, batch_size: 2}\n"
        "evaluate: {sequences: 4, on_the_way: 2}\nsample: {number: 2}\ntrack: {to: none}\n"
    ),
    "my_plugin.py": "".join(re.findall(r"```python\n(.*?)```", README, re.DOTALL)),
}
"""Files of the reader's own that the commands speak of."""

ELSEWHERE = "wikitext103", "zero-shot", "wikitext2", "duo.ckpt", "slurm", "check mine"
"""Words of commands that need a network, a cluster, or somebody's checkpoint or part."""

TAKE_LONG = "bench", "dashboard", "--all", "--matrix", "--tasks"
"""Words of commands that tests of their own try."""


def typed(folder: Path, page: str) -> list[tuple[str, int, str]]:
    """Each command of a page, typed in order in one folder: its exit code and what it said."""
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    lines = re.findall(r"^    platform (?!run: )(\S.*)$", page, re.MULTILINE)
    commands = [re.split(r"   +", line)[0] for line in lines]
    commands = [c for c in commands if not set(shlex.split(c)) & set(TAKE_LONG)]
    done = subprocess.run(
        [forked.python(), Path(__file__).parent / "typed.py", folder],
        input="".join(f"{json.dumps(small(shlex.split(command)))}\n" for command in commands),
        capture_output=True,
        text=True,
        timeout=1500,
        env={**os.environ, "PLATFORM_CACHE": str(folder / "cache"), "PLATFORM_TRACK__TO": "none"},
    )
    assert done.returncode == 0, done.stderr
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    return [
        (command, code, said + errors)
        for command, (code, said, errors) in zip(commands, outcomes, strict=True)
    ]


def small(words: list[str]) -> list[str]:
    """The same command, of a size that takes a second."""
    if "run" in words and "--resume" not in words and "--init" not in words:
        words = [*words, *SMALL]
        if "ar" in words:  # whose sampler takes one step for each token
            words.remove("--sampler.steps=2")
        return words
    if "run" in words:
        return [*words, "--train.steps=3"]
    return [*words, "--size=300"] if "tokenizer" in words else words


@pytest.mark.slow
@pytest.mark.parametrize("page", [README, COMMANDS], ids=["README", "commands"])
def test_every_command_works_when_typed_in_order(page: str, tmp_path: Path) -> None:
    folder = tmp_path / "clone"
    folder.mkdir()
    outcomes = typed(folder, page)
    assert len(outcomes) > 4
    for command, code, said in outcomes:
        print(code, command)
        if any(word in command for word in ELSEWHERE):
            assert code in (0, 2), f"{command}\n{said}"
            assert "Traceback" not in said, f"{command}\n{said}"
        else:
            assert code == 0, f"{command}\n{said}"
