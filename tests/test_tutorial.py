"""The tutorial of plugins/README.md: its commands run and its files are written, one after another.

Where hatchling or editables is missing, `pip install -e` needs the network to build; then what it
would write is written instead (`strangers`), and the command itself is not run.
"""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import forked
import pytest
import strangers

TUTORIAL = (Path(__file__).parents[1] / "plugins/README.md").read_text()
BLOCKS = re.findall(r"^```(sh|python|yaml)\n(.*?)^```", TUTORIAL, re.MULTILINE | re.DOTALL)
BUILDS = all(map(find_spec, ("hatchling", "editables")))


class Reader:
    """Someone who does as the tutorial says, in an empty directory."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.site = folder, folder / "site"
        # An environment of its own, so that what is installed here stays as it is.
        here = Path(sys.executable).parent
        self.binaries = strangers.fresh_environment(folder / "venv") if BUILDS else here
        # `platform` is a process that forks, and has what is installed in that environment.
        self.programs = [forked.programs(), str(self.binaries)]
        self.installed = {"FORKED_PYTHON": str(self.binaries / "python")} if BUILDS else {}
        if BUILDS:
            self.installed["FORKED_SITE"] = str(strangers.packages(folder / "venv"))
        self.said: dict[str, str] = {}

    def follow(self, language: str, block: str) -> None:
        """Runs commands, or writes a file whose path is in the first line."""
        if language == "sh":
            for command in block.splitlines():
                self.run(command)
            return
        head, _, content = block.partition("\n")
        path, _, where = head.removeprefix("# ").partition(", ")
        with (self.folder / path).open({"": "w", "at the end": "a"}[where]) as file:
            file.write(content)

    def run(self, command: str) -> None:
        """One command, which must succeed."""
        if command.startswith("pip install") and not BUILDS:
            (package,) = re.fullmatch(r"pip install -e (\S+)", command).groups()
            strangers.install(self.folder / package, self.site)
            return
        command = command.replace("pip install", "pip install --no-deps --no-build-isolation")
        sources = sorted(self.folder.glob("platform-*/src"))
        environment = strangers.environment(self.site, *sources)
        path = os.pathsep.join((*self.programs, environment["PATH"]))
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env={
                **environment,
                **self.installed,
                **{"PATH": path, "PLATFORM_TRACK__AIM": "false", "COLUMNS": "300"},
            },
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        self.said[command] = done.stdout


@pytest.mark.slow
def test_the_tutorial_works_as_it_is_written(tmp_path):
    reader = Reader(tmp_path)
    for language, block in BLOCKS:
        reader.follow(language, block)
    assert "sticky" in reader.said["platform plugins"]
    assert re.search(r"\b0 broken", reader.said["platform check sticky"])
    assert "schedule:late" in reader.said["platform check sticky"], "of both parts"
    results = [path.parent.name for path in (tmp_path / "runs").rglob("result.json")]
    assert len(results) == 1 + 2 + 1 + 2, results
    assert (tmp_path / "runs/compared/report/index.html").is_file()
    assert "tokens are used" in reader.said["platform eval runs/sticky --used"]
    (compared,) = (said for command, said in reader.said.items() if " compare " in command)
    assert "peak memory (bytes)" in compared
    checked = reader.said["platform check platform-sticky"]
    assert re.search(r"\b0 broken", checked.splitlines()[-1])
    for service in ("command", "corpus", "tokenizer", "launcher", "callback"):
        assert f"{service}:" in checked
    assert "config.yaml" in reader.said["platform sizes runs/sticky"]
    counted = json.loads((tmp_path / "runs/counting/result.json").read_text())
    assert counted["stopped"] == "until: the loss is below 100"
    started = [line for line in list(reader.said.values())[-1].splitlines() if "started" in line]
    assert ["uniform" in line for line in started] == [True, False]


def test_the_tutorial_has_each_step():
    commands = [
        line for language, block in BLOCKS if language == "sh" for line in block.splitlines()
    ]
    verbs = [command.split()[1] for command in commands]
    steps = ["new-plugin", "install", "plugins", "check", "run", "check", "sweep", "report"]
    services = ["check", "sizes", "run", "sweep"]
    assert verbs == [*steps, "eval", "check", "compare", *services]
