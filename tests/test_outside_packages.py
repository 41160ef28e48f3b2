"""Packages of strangers, two of them with a process, the others with every hook but those of parts:
found, checked, used, installed.

`tests/third_party` has them. Here they are installed as pip would (`strangers`), and once by pip
itself. What they bring is used in processes of its own, as a user does.
"""

import ast
import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import forked
import pytest
import strangers
import yaml
from warm import Warm

from platform_core.hookspecs import HOOKS, ROLE_HOOKS
from platform_core.record.sweep import SweepDirectory

PACKAGES = sorted(Path(__file__).parent.glob("third_party/*/pyproject.toml"))
FOLDERS = [path.parent for path in PACKAGES]
PROCESSES = {"platform-kernel", "platform-learned-schedule"}
SERVICES = [folder for folder in FOLDERS if folder.name not in PROCESSES]
TINY = {
    "backbone.hidden_size": 16,
    "backbone.num_blocks": 1,
    "backbone.num_heads": 2,
    "data.corpus": "sums",
    "data.path": 12,
    "data.length": 12,
    "train.steps": 4,
    "train.batch_size": 4,
    "train.log_every": 1,
    "train.precision": "fp32",
    "evaluate.sequences": 4,
    "sample.number": 2,
    "sampler.steps": 4,
}


class Home:
    """An empty folder, and an environment in which the packages are installed."""

    def __init__(self, folder: Path) -> None:
        self.folder, site = folder, folder / "site"
        sources = [strangers.install(package, site) for package in FOLDERS]
        self.environment = {
            **strangers.environment(site, *sources),
            "COLUMNS": "300",
            "PLATFORM_CACHE": str(folder / "cache"),
            "PLATFORM_DISABLE_PLUGINS": "aim",  # takes seconds
            "OMP_NUM_THREADS": "1",
        }

    @cached_property
    def warm(self) -> Warm:
        """Where verbs run."""
        return Warm(self.folder, self.environment)

    def run(self, *words: object) -> str:
        """What a module prints, which must succeed."""
        done = subprocess.run(
            [forked.python(), "-m", *map(str, words)],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def platform(self, *words: object) -> str:
        """What a verb prints, which must succeed."""
        done = self.warm.run(*map(str, words))
        assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def train(self, name: str, *words: object) -> Path:
        """The directory of a tiny run."""
        options = [f"--{key}={value}" for key, value in TINY.items()]
        self.platform("run", *options, *words, "--output", name)
        return self.folder / name


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    home = Home(tmp_path_factory.mktemp("strangers"))
    yield home
    if "warm" in vars(home):
        home.warm.close()


@pytest.fixture(scope="module")
def runs(home: Home) -> list[Path]:
    """Two runs of the stranger's corpus, tokenizer, callback and optimizer, of two seeds."""
    words = ("--data.tokenizer=words", "--callbacks.loss_below.loss=100", "--callbacks=loss-below")
    words = (*words, "--train.optimizer=signs")
    return [home.train(f"run-{seed}", *words, f"--seed={seed}") for seed in (1, 2)]


def test_the_packages_are_listed_with_all_that_they_bring(home: Home) -> None:
    listed = json.loads(home.run("platform_core.cli", "plugins", "--json"))
    assert {plugin["status"] for plugin in listed["plugins"]} == {"loaded", "disabled"}
    by_name = {plugin["name"]: plugin for plugin in listed["plugins"]}
    own = [by_name[folder.name.removeprefix("platform-")] for folder in SERVICES]
    used = {hook for plugin in own for hook in plugin["hooks"]}
    assert used == set(HOOKS.values()) - set(ROLE_HOOKS.values()), "one use of each hook"
    told = home.run("platform_core.cli", "plugins")
    for component in listed["components"]:
        if component["plugin"] in [plugin["name"] for plugin in own]:
            assert re.search(
                rf"{component['role']} +{component['name']} +{component['distribution']}", told
            )


@pytest.mark.slow
@pytest.mark.parametrize("folder", SERVICES, ids=lambda folder: folder.name)
def test_nothing_is_broken(home: Home, folder: Path) -> None:
    assert " 0 broken" in home.platform("check", folder.name).splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_their_own_tests_pass(home: Home, folder: Path) -> None:
    copied = shutil.copytree(folder, home.folder / "own tests" / folder.name)
    said = home.run("pytest", "-q", f"--rootdir={copied}", "-c", copied / "pyproject.toml", copied)
    assert re.search(r"\d passed", said)
    assert "skipped" not in said


@pytest.mark.slow
def test_a_run_uses_corpus_tokenizer_and_callback(runs: list[Path]) -> None:
    for run in runs:
        assert json.loads((run / "tokenizer.json").read_text())["kind"] == "words"
        result = json.loads((run / "result.json").read_text())
        assert result["stopped"] == "loss-below: the loss was below 100 for 3 logged updates"
        assert result["steps"] == 3
        metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        watched = [line for line in metrics if "loss-below/updates_below" in line]
        assert [line["loss-below/updates_below"] for line in watched] == [1, 2, 3]


@pytest.mark.slow
def test_a_run_is_tracked_and_goes_on_where_it_stopped(home: Home) -> None:
    run = home.train("tracked", "--track.to=csv", "--train.checkpoint_every=2")
    with (run / "csv/numbers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    losses = [row for row in rows if (row["subset"], row["name"]) == ("train", "loss")]
    assert [row["step"] for row in losses] == ["1", "2", "3", "4"]
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    kept = [line["loss"] for line in metrics if "loss" in line]
    assert [float(row["value"]) for row in losses] == kept
    with (run / "csv/texts.csv").open(newline="") as file:
        assert {row["number"] for row in csv.DictReader(file)} == {"0", "1"}


@pytest.mark.slow
def test_runs_are_measured_and_compared(home: Home, runs: list[Path]) -> None:
    for run in runs:
        said = home.platform("eval", run.name, "--right", "--sample.number=8")
        assert said.startswith("8 samples: ")
        (kept,) = (run / "evaluations").glob("sums-*.json")
        record = json.loads(kept.read_text())
        assert 0 <= record["right"] <= record["well_formed"] <= 1
        assert record["card"]["largest"] == 12
    table = home.platform("compare", *(run.name for run in runs), "--metric", "right")
    assert "samples that are right" in table
    assert all(re.search(rf"^{run.name} ", table, re.MULTILINE) for run in runs)


@pytest.mark.slow
def test_the_verb_lists_words(home: Home, runs: list[Path]) -> None:
    assert "different; the training text lacks" in home.platform("vocabulary", runs[0].name)
    counted = json.loads(home.platform("vocabulary", runs[0].name, "--json", "--number=3"))
    assert all(
        re.fullmatch(r"[0-9]+", word) and number > 0 for word, (number, _) in counted.items()
    )


@pytest.mark.slow
def test_a_sweep_runs_its_trials_in_the_launcher_s_order(home: Home) -> None:
    file = home.folder / "costs.yaml"
    file.write_text(yaml.safe_dump({"set": TINY, "axes": {"train.steps": [3, 1]}}))
    home.platform("sweep", file.name, "--launcher=cheapest-first", "--output=costs")
    sweep = SweepDirectory.existing(home.folder / "costs")
    states = {name: sweep.state(name) for name in sweep.names().values()}
    assert {state.status for state in states.values()} == {"finished"}
    started = sorted(states, key=lambda name: states[name].started or "")
    assert started == ["train.steps=1", "train.steps=3"]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_they_import_what_they_depend_on_and_nothing_private(folder: Path) -> None:
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    names = [re.split(r"[<>=]", needed)[0] for needed in project["dependencies"]]
    modules = {
        name.removeprefix("dlm-").replace("-", "_").replace("pyyaml", "yaml") for name in names
    }
    allowed = {*modules, folder.name.replace("-", "_"), *sys.stdlib_module_names}
    for path in folder.glob("src/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert {name.name.split(".")[0] for name in node.names} <= allowed
            elif isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] in allowed
                assert not any(name.name.startswith("_") for name in node.names)


@pytest.mark.slow
def test_pip_installs_them(tmp_path: Path) -> None:
    """Without an index, from wheels that hatchling builds here."""
    binaries = strangers.fresh_environment(tmp_path / "environment")
    copies = [shutil.copytree(folder, tmp_path / folder.name) for folder in FOLDERS]
    options = ("--no-index", "--no-build-isolation", "--no-deps", "--disable-pip-version-check")
    said = subprocess.run(
        [binaries / "python", "-m", "pip", "install", *options, *copies],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert said.returncode == 0, said.stdout + said.stderr
    listed = subprocess.run(
        [binaries / "platform", "plugins", "--json"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )
    plugins = {plugin["distribution"]: plugin for plugin in json.loads(listed.stdout)["plugins"]}
    for folder in FOLDERS:
        assert plugins[folder.name]["status"] == "loaded"
        module = folder.name.replace("-", "_")
        assert list((tmp_path / "environment").rglob(f"site-packages/{module}/py.typed"))
