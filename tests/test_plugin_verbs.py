"""Verbs and lists of the plugins of this repository."""

from pathlib import Path

import pytest

from platform_core.cli import TOOLS, main, verbs
from platform_core.registry.loading import installed

STUBS = Path(__file__).parents[1] / "core/tests/stub_parts.py"


def test_the_verbs_that_help_knows_are_those_that_plugins_register() -> None:
    plugins = installed()
    found = {name: plugins.get("command", name) for name in plugins.names("command")}
    assert {name: part.component.summary for name, part in found.items()} == verbs()
    assert all(found[verb].plugin.name == name for verb, (name, _) in TOOLS.items())


def test_plugins_lists_parts_with_their_providers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "-p", str(STUBS), "-p", "no:duo"]) == 0
    text = capsys.readouterr().out
    line = next(line for line in text.splitlines() if " narrow " in line)
    assert line.split() == ["backbone", "narrow", "file", str(STUBS), "one", "layer"]
    assert "disabled: plugin duo (dlm-platform-duo " in text
