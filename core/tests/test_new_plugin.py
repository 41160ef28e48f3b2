"""`platform new-plugin` writes packages that work at once, or nothing."""

from pathlib import Path

import pytest

from platform_core.cli import main
from platform_core.component import KINDS
from platform_core.registry.loading import find_plugins
from platform_core.templates import scaffold

WRITTEN = [kind for kind in KINDS if (scaffold.TEMPLATES / kind).is_dir()]
"""What a package can be written of."""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("kind", WRITTEN)
def test_the_package_is_complete_and_has_the_author_s_names(kind, tmp_path, capsys):
    assert main(["new-plugin", "blue-sky", "--kind", kind]) == 0
    package = tmp_path / "platform-blue-sky"
    source = "src/platform_blue_sky"
    files = {str(path.relative_to(package)) for path in package.rglob("*") if path.is_file()}
    assert files == {
        "README.md",
        "pyproject.toml",
        "tests/test_contract.py",
        *(f"{source}/{name}" for name in ("__init__.py", "plugin.py", f"{kind}.py", "py.typed")),
    }
    texts = "".join((package / name).read_text() for name in files)
    for left in (
        "new-part",
        "NewPart",
        "new_part",
        "ROLE",
        "NEEDS",
        "USE_",
        "platform_core.templates",
    ):
        assert left not in texts
    code = (package / source / f"{kind}.py").read_text()
    assert "class BlueSky(" in code or kind == "command"
    assert f"platform check blue-sky\n  {scaffold.use('blue-sky', kind)}" in capsys.readouterr().out
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("kind", [kind for kind in WRITTEN if kind != "launcher"])
def test_a_template_is_a_plugin_itself(kind):
    module = f"platform_core.templates.{kind}.plugin"
    plugins = find_plugins({"PLATFORM_PLUGINS": module})
    assert plugins.load(kind, "new-part").__module__ == f"platform_core.templates.{kind}.{kind}"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("Blue", "'Blue' is not a valid package name"),
        ("blue--sky", "'blue--sky' is not a valid package name"),
        ("blue_sky", "'blue_sky' is not a valid package name"),
        ("../blue", "'../blue' is not a valid package name"),
        ("3d", "'3d' is not a valid package name"),
        ("lambda", "lambda is a reserved name; choose another, like my-process"),
        ("platform", "platform is a reserved name"),
        ("platform-blue", "leave out the first platform-"),
        ("uniform", "a process called uniform exists already (dlm-platform-core"),
        ("cosine --kind schedule", "a schedule called cosine exists already"),
        ("block --kind backbone", "the class of block would be Block"),
        ("blue --kind colour", "argument --kind: invalid choice: 'colour'"),
        ("blue --output there", "there exists; give another --output"),
        ("", "the following arguments are required: NAME"),
    ],
)
def test_a_name_that_cannot_be_writes_nothing(words, said, tmp_path, capsys):
    (tmp_path / "there").mkdir()
    assert main(["new-plugin", *words.split()]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_name_is_taken_in_its_own_role_only(tmp_path):
    assert main(["new-plugin", "cosine", "--kind", "sampler", "--output", "a/b"]) == 0
    assert (tmp_path / "a/b/src/platform_cosine/sampler.py").is_file()


def test_what_fails_half_way_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(scaffold.Path, "rename", fail)
    with pytest.raises(KeyboardInterrupt):
        scaffold.write_package("blue", "schedule", tmp_path / "blue")
    assert not list(tmp_path.iterdir())
