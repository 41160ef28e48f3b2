"""Packages that `platform new-plugin` writes, of every kind that a plugin adds, at work."""

import subprocess
from pathlib import Path

import forked
import pytest
import strangers

from platform_core.cli import main
from platform_core.component import KINDS
from platform_core.registry.loading import find_plugins
from platform_core.templates import scaffold

WRITTEN = [kind for kind in KINDS if (scaffold.TEMPLATES / kind).is_dir()]
"""What a package can be written of."""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
def test_packages_of_every_kind_pass_their_own_tests(tmp_path):
    """All installed beside each other, each with its own tests, in one run of pytest."""
    site, sources = tmp_path / "site", []
    for kind in WRITTEN:
        package = tmp_path / kind
        assert main(["new-plugin", f"my-{kind}", "--kind", kind, "--output", str(package)]) == 0
        sources.append(strangers.install(package, site))
    done = subprocess.run(
        [forked.python(), "-m", "pytest", "-q", "--import-mode=importlib", *WRITTEN],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=strangers.environment(site, *sources),
    )
    assert done.returncode == 0, done.stdout
    assert int(done.stdout.split(" passed")[0].split()[-1]) > 3 * len(WRITTEN)


def test_the_template_of_a_launcher_is_a_plugin_itself():
    module = "platform_core.templates.launcher.plugin"
    plugins = find_plugins({"PLATFORM_PLUGINS": module})
    loaded = plugins.load("launcher", "new-part")
    assert loaded.__module__ == "platform_core.templates.launcher.launcher"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("duo", "plugin duo exists already (dlm-platform-duo"),
        ("dlm-platform-duo", "exists already"),
    ],
)
def test_the_name_of_a_plugin_that_is_there_writes_nothing(word, said, tmp_path, capsys):
    assert main(["new-plugin", word]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())
