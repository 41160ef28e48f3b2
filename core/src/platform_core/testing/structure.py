"""Laws of every part: the part can be imported, chosen and configured, and is documented."""

import inspect
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from platform_core.component import ROLES
from platform_core.composition.compose import compose
from platform_core.composition.computed import COMPUTED
from platform_core.errors import UsageError, did_you_mean
from platform_core.registry.parts import BASES, resolve
from platform_core.testing.law import Figures, Inapplicable, LawBroken, Laws, require
from platform_core.testing.partners import composition
from platform_core.testing.subject import Subject, parameters

LAWS = Laws(None)

HEAVY_MODULES = ("torch", "accelerate", "datasets", "transformers")


@LAWS.law()
def complete(subject: Subject) -> Figures:
    """The part's class can be imported, is of the part's role, and leaves no method abstract."""
    try:
        subject.plugins.load(subject.role, subject.name)
    except UsageError as error:
        raise LawBroken(str(error)) from error
    base = BASES.get(subject.role, ":function").partition(":")[2]
    return f"{subject.part.component.target}, a {base}"


@LAWS.law()
def typed_options(subject: Subject) -> Figures:
    """Each argument of the part's constructor has a type, and a default unless it is computed from
    other parts; no argument is called name.
    """
    computed = [*COMPUTED[subject.role], *subject.part.component.inside(subject.role)]
    options = [p for p in parameters(subject.chosen) if p.name not in computed]
    untyped = [p.name for p in options if p.annotation is p.empty]
    without = [p.name for p in options if p.default is p.empty]
    faults = [f"{name} has no type" for name in untyped]
    faults += [
        f"{name} has no default and is not computed ({', '.join(computed)} are)" for name in without
    ]
    faults += ["name is a reserved name"] if "name" in (p.name for p in options) else []
    require(not faults, "; ".join(faults))
    return f"{len(options)} options"


@LAWS.law()
def documented(subject: Subject) -> Figures:
    """The part's summary is one line, and its docstring explains each option under Args."""
    summary = subject.part.component.summary
    require(bool(summary.strip()) and "\n" not in summary, f"its summary is {summary!r}")
    require(bool(subject.chosen.__doc__), "its class has no docstring, which --help shows")
    owners = [owner for owner in subject.chosen.__mro__ if owner is not object]
    explained = {name for owner in owners for name in _explained(owner)}
    options = {p.name for p in parameters(subject.chosen)} - set(COMPUTED[subject.role])
    lacking = sorted(options - explained)
    require(not lacking, f"no line under Args for {', '.join(lacking)}")
    return summary


def _explained(owner: type) -> list[str]:
    document = inspect.cleandoc(owner.__doc__ or "")
    _, found, rest = document.partition("Args:\n")
    section = re.split(r"^\S", rest, maxsplit=1, flags=re.MULTILINE)[0] if found else ""
    return re.findall(r"^    (\w+)(?: \(.*?\))?:", section, flags=re.MULTILINE)


@LAWS.law()
def requires_classes(subject: Subject) -> Figures:
    """The part's `requires` maps other roles to classes of these roles."""
    required = getattr(subject.kind, "requires", {})
    for role, needed in required.items():
        require(role in ROLES and role != subject.role, f"requires {role!r}, not another role")
        base = resolve(BASES[role])
        assert isinstance(base, type)
        is_class = isinstance(needed, type)
        require(is_class, f"requires {role} {needed!r}, which is not a class")
        require(issubclass(needed, base), f"{needed.__name__} is not a {base.__name__}")
    return ", ".join(f"{role} {needed.__name__}" for role, needed in required.items()) or "nothing"


def _claims_all(subject: Subject) -> str:
    return "" if hasattr(subject.kind, "unclaimed") else "it claims every law"


@LAWS.law(against=_claims_all, silent=True)
def unclaimed_laws(subject: Subject) -> Figures:
    """The part's `unclaimed` maps ids of laws of the part's role to the reason why the part does
    not claim to keep the law.
    """
    from platform_core.testing.check import ROLE_LAWS

    found = subject.kind.unclaimed  # type: ignore[attr-defined]  # see _claims_all
    require(isinstance(found, Mapping), f"unclaimed is {found!r}, which is not a mapping")
    laws = [law.id for law in ROLE_LAWS.get(subject.role, ())]
    for name, why in found.items():
        near = did_you_mean(str(name), laws) or f"; they are {', '.join(laws)}"
        require(name in laws, f"{name!r} is not a law of a {subject.role}{near}")
        require(isinstance(why, str) and bool(why.strip()), f"{name} is not claimed for no reason")
    return ", ".join(found) or "it claims every law"


@LAWS.law(heavy=True)
def registers_lightly(subject: Subject) -> Figures:
    """Registering the part's plugin imports no torch, accelerate, datasets or transformers."""
    plugin = subject.part.plugin
    if plugin.distribution == "file":
        raise Inapplicable("a plugin that is a single file contains its parts")
    imported = _heavy_imports(plugin.value, plugin.hooks)
    require(not imported, f"importing {plugin.value} and calling its hooks imports {imported}")
    return plugin.value


@cache
def _heavy_imports(module: str, hooks: tuple[str, ...]) -> str:
    program = (
        "import importlib, sys\n"
        "module, *hooks = sys.argv[1].split()\n"
        "found = importlib.import_module(module)\n"
        "for hook in hooks: list(getattr(found, hook)())\n"
        f"print(' '.join(m for m in {HEAVY_MODULES} if m in sys.modules))\n"
    )
    words = " ".join((module, *hooks))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, words],
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        return f"nothing but fails: {done.stderr.strip().splitlines()[-1]}"
    return done.stdout.strip()


@LAWS.law(heavy=True)
def config_round_trip(subject: Subject) -> Figures:
    """The config of a composition with the part, composed again, is the same byte for byte."""
    made = composition(subject)
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "config.yaml"
        saved.write_text(made.config)
        again, _ = compose(["--config", str(saved)], subject.plugins, prog="check", environ={})
    if again.config != made.config:
        pairs = zip(made.config.splitlines(), again.config.splitlines(), strict=False)
        first = next((f"{one!r} became {other!r}" for one, other in pairs if one != other), "")
        raise LawBroken(f"the config changed: {first or 'its length'}")
    return ", ".join(f"{role} {name}" for role, name in made.names.items())
