"""Creation of new packages for `platform new-plugin`: copies of a template under another name.

The templates are working packages (`templates`), so that linters, type checks and tests apply to
them; in a copy, their names are replaced word by word.
"""

import keyword
import re
from collections.abc import Mapping
from pathlib import Path

from platform_core.component import Component
from platform_core.errors import UsageError, with_article
from platform_core.record.files import whole_folder
from platform_core.registry.parts import Plugins

TEMPLATES = Path(__file__).parent
TESTS = "test_contract.py"
RESERVED = ("platform", "core", "new-part")

USES = {
    "command": "platform {name} --help",
    "evaluation": "platform eval RUN --{option}",
    "tracker": "platform run --track.to {name}",
    "corpus": "platform run --data.corpus {name}",
    "tokenizer": "platform run --data.tokenizer {name}",
    "launcher": "platform sweep FILE.yaml --launcher {name}",
    "callback": "platform run --callbacks {name}",
    "optimizer": "platform run --train.optimizer {name}",
    "reward": "platform sample RUN --sampler best-of --sampler.reward {name}",
}
"""Kind of service -> the command that uses a component of it; parts are named to `platform run`."""

NEEDS = {"launcher": "dlm-platform-sweep>=0.1,<0.2"}
"""Kind -> what its packages depend on besides core; packages of other kinds depend on torch."""


def require_free(name: str, kind: str, plugins: Plugins) -> None:
    """Refuse a name that a package, its plugin or its part cannot have.

    Raises:
        UsageError: the name is invalid, reserved or taken; the message says what to do.
    """
    try:
        Component(name, "module:Class")
    except ValueError as error:
        raise UsageError(
            f"{name!r} is not a valid package name; use small letters, digits and single hyphens, "
            "like my-process"
        ) from error
    if keyword.iskeyword(name) or keyword.issoftkeyword(name) or name in RESERVED:
        raise UsageError(f"{name} is a reserved name; choose another, like my-{kind}")
    if name.startswith("platform-"):
        raise UsageError(
            f"the package of {name} would be platform-{name}; leave out the first platform-"
        )
    for plugin in plugins.plugins:
        if plugin.goes_by(name) or plugin.goes_by(distribution(name)):
            raise UsageError(f"plugin {name} exists already ({plugin.provider}); choose another")
    class_name = _words(name, kind)["NewPart"]
    if re.search(rf"\b{class_name}\b", (TEMPLATES / kind / f"{kind}.py").read_text("utf-8")):
        raise UsageError(
            f"the class of {name} would be {class_name}, which the package needs for something "
            f"else; choose another name, like my-{name}"
        )
    taken = plugins.find(kind, name)
    if taken:
        provider = taken[0].plugin.provider
        raise UsageError(
            f"{with_article(kind)} called {name} exists already ({provider}); choose another name"
        )


def distribution(name: str) -> str:
    """The distribution name of a package, for pip."""
    return f"platform-{name}"


def use(name: str, kind: str) -> str:
    """The command that uses a component of this name and kind."""
    form = USES.get(kind, "platform run --{kind} {name}")
    return form.format(name=name, kind=kind, option=name.replace("-", "_"))


def write_package(name: str, kind: str, folder: Path) -> None:
    """Write a package with one part; on failure, nothing is written.

    Args:
        name: name of the part and the plugin; the package is called platform-NAME.
        kind: a role, or the kind of a service.
        folder: folder of the package, which must not exist.

    Raises:
        UsageError: the folder exists or cannot be written.
    """
    if folder.exists() or folder.is_symlink():
        raise UsageError(f"{folder} exists; give another --output")
    words = _words(name, kind)
    with whole_folder(folder) as beside:
        _copy(TEMPLATES / "package", beside, words)
        source = beside / "src" / words["platform_new_part"]
        _copy(TEMPLATES / kind, source, words)
        if (source / TESTS).exists():  # replaces the tests of `package`
            (source / TESTS).replace(beside / "tests" / TESTS)
        (beside / "src" / words["platform_new_part"] / "py.typed").touch()


def _words(name: str, kind: str) -> Mapping[str, str]:
    module = f"platform_{name.replace('-', '_')}"
    return {
        f"platform_core.templates.{kind}": module,
        "platform_new_part": module,
        "new_part": name.replace("-", "_"),
        "NewPart": "".join(word.capitalize() for word in name.split("-")),
        "new-part": name,
        "USE_OF_PART": use(name, kind),
        "NEEDS": NEEDS.get(kind, "torch>=2.6,<2.14"),
        "ROLE": kind,
    }


def _copy(source: Path, target: Path, words: Mapping[str, str]) -> None:
    pattern = re.compile("|".join(map(re.escape, words)))
    for path in sorted(source.rglob("*")):
        if path.is_dir() or "__pycache__" in path.parts:
            continue
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        text = pattern.sub(lambda found: words[found.group()], path.read_text(encoding="utf-8"))
        copy.write_text(text, encoding="utf-8")
