"""The parts that plugins provide, by role and name, and what is said when one cannot be had.

`plugins` fills it; composition, `platform plugins` and the tests read it. A part's class is
imported by `load`, nothing earlier.
"""

import importlib
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from platform_core.component import ROLES, Component
from platform_core.errors import UsageError
from platform_core.wording import did_you_mean, either, reason, with_article

BASES = {
    "process": "platform_core.process:Process",
    "schedule": "platform_core.schedule:Schedule",
    "parameterization": "platform_core.parameterization:Parameterization",
    "backbone": "platform_core.backbone:Backbone",
    "objective": "platform_core.objective:Objective",
    "sampler": "platform_core.sampler:Sampler",
}
"""The abstract class of each role."""

FIRST_PARTY = {
    "process": {name: name for name in ("ar", "d3pm", "duo", "mdlm", "sedd")},
    "schedule": {"gaussian": "duo", "geometric": "sedd"},
    "backbone": {"dit": "dit", "hf": "hf"},
    "objective": {
        "curriculum": "duo",
        "discrete-consistency": "duo",
        "discrete-nelbo": "d3pm",
        "masked-nelbo": "mdlm",
        "next-token": "ar",
        "score-entropy": "sedd",
        "sdtt": "mdlm",
        "uniform-nelbo": "duo",
    },
    "parameterization": {"next-token": "ar", "score": "sedd", "subs": "mdlm"},
    "sampler": {
        "left-to-right": "ar",
        "cached-ancestral": "mdlm",
        "first-hitting": "mdlm",
        "psi": "duo",
        "remdm": "mdlm",
        "semi-autoregressive": "mdlm",
        "analytic": "sedd",
        "euler": "sedd",
    },
}
"""The platform's own plugins that provide a part, so that a missing one can be named."""

Status = Literal["loaded", "broken", "conflict", "disabled"]


@dataclass(frozen=True)
class Plugin:
    """One plugin as the loader found it."""

    name: str
    distribution: str
    """Name of the distribution, or `file` or `module` for one named with `-p`."""
    version: str
    value: str
    """The module, or the path of the file."""
    status: Status = "loaded"
    reason: str = ""
    traceback: str = ""
    hooks: tuple[str, ...] = ()
    components: tuple[tuple[str, Component], ...] = ()
    """Role and component, in the order in which hooks returned them."""

    @property
    def provider(self) -> str:
        """Distribution and version, or the file or module."""
        return f"{self.distribution} {self.version or self.value}"

    def goes_by(self, name: str) -> bool:
        """Whether this is the plugin's name or, written any way, its distribution's."""
        return name == self.name or normal(name) == normal(self.distribution)


@dataclass(frozen=True)
class Part:
    """A component of one role, and the plugin that provides it."""

    role: str
    component: Component
    plugin: Plugin

    def __str__(self) -> str:
        plugin = self.plugin
        return f"{self.role} {self.component.name} of plugin {plugin.name} ({plugin.provider})"


class Plugins:
    """Everything that is installed."""

    def __init__(self, plugins: Sequence[Plugin]) -> None:
        self.plugins = tuple(plugins)
        self._parts: dict[str, dict[str, list[Part]]] = {role: {} for role in ROLES}
        for plugin in self.plugins:
            for role, component in plugin.components:
                part = Part(role, component, plugin)
                self._parts[role].setdefault(component.name, []).append(part)

    def names(self, role: str) -> list[str]:
        """Names that may be asked for, in alphabetical order."""
        return sorted(self._parts[role])

    def parts(self) -> Iterator[Part]:
        """All parts, by role and name."""
        for role in ROLES:
            for name in self.names(role):
                yield from self._parts[role][name]

    def roles_of(self, name: str) -> list[str]:
        """Roles that have a part of this name."""
        return [role for role in ROLES if name in self._parts[role]]

    def find(self, role: str, name: str) -> Sequence[Part]:
        """The parts of this name: none, one, or those of plugins that clash."""
        return self._parts[role].get(name, ())

    def get(self, role: str, name: str) -> Part:
        """The part of this name, not yet imported.

        Raises:
            UsageError: no plugin provides it, or more than one.
        """
        found = self.find(role, name)
        if not found:
            raise UsageError(self._unknown(role, name))
        if len(found) > 1:
            raise UsageError(
                f"{clash(found)}; disable one, for example -p no:{found[0].plugin.name}"
            )
        return found[0]

    def load(self, role: str, name: str) -> type:
        """The class of this name, imported now.

        Raises:
            UsageError: as `get`; or the class cannot be imported, or is not of the role.
        """
        part = self.get(role, name)
        found = _imported(part, part.component.target)
        for target in part.component.kinds.values() or (part.component.target,):
            _require_complete(part, target)
        return found

    def kinds(self, role: str, name: str) -> Mapping[str, type]:
        """The classes that a part's objects can have, by the option that asks for each ("states
        uniform"); without such an option, its own.

        Raises:
            UsageError: as `load`.
        """
        chosen = self.load(role, name)
        part = self.get(role, name)
        by_option = part.component.kinds.items()
        return {form: _imported(part, target) for form, target in by_option} or {"": chosen}

    def kind(self, role: str, name: str, options: Mapping[str, object]) -> type:
        """The class of a part's objects under some of its options.

        Raises:
            UsageError: as `load`; or the options ask for a class that the part does not have.
        """
        by_option = self.kinds(role, name)
        for form, kind in by_option.items():
            option, _, value = form.partition(" ")
            if not option or str(options.get(option)) == value:
                return kind
        raise UsageError(f"{role} {name} has no objects but those with {either(list(by_option))}")

    def problems(self) -> list[str]:
        """One line for each plugin that is broken or in conflict."""
        return [
            f"plugin {p.name} ({p.provider}) was left out: {p.reason}"
            for p in self.plugins
            if p.status in ("broken", "conflict")
        ]

    def clashes(self) -> list[str]:
        """One line for each name of a part that more than one plugin provides."""
        return [
            clash(found)
            for by_name in self._parts.values()
            for found in by_name.values()
            if len(found) > 1
        ]

    def _unknown(self, role: str, name: str) -> str:
        near = did_you_mean(name, self._parts[role])
        head = f"unknown {role} {name!r}{near}{' ' if near else '; '}"
        said = []
        elsewhere = self.roles_of(name)
        if elsewhere:
            said.append(f"{name} is {with_article(elsewhere[0])}: --{elsewhere[0]} {name}")
        missing = self._missing(role, name)
        if missing:
            said.append(missing)
        known = ", ".join(
            f"{known} ({found[0].plugin.provider})"
            for known, found in sorted(self._parts[role].items())
        )
        said.append(f"known: {known or 'none'}")
        said += [
            f"plugin {p.name} ({p.provider}) is {_STATE[p.status]} and may provide it: {p.reason}"
            for p in self.plugins
            if p.status != "loaded"
        ]
        return head + "; ".join(said)

    def _missing(self, role: str, name: str) -> str:
        plugin = FIRST_PARTY.get(role, {}).get(name)
        if plugin is None or any(p.goes_by(f"dlm-platform-{plugin}") for p in self.plugins):
            return ""
        return (
            f"it comes with dlm-platform-{plugin}, which is not installed: "
            f"pip install -e plugins/{plugin} in the platform's repository"
        )


_STATE = {"broken": "broken", "conflict": "in conflict", "disabled": "disabled"}


def resolve(target: str) -> object:
    """The object at MODULE:NAME."""
    module, _, path = target.partition(":")
    found: object = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    return found


def _imported(part: Part, target: str) -> type:
    """The class at a target of a part."""
    try:
        found = resolve(target)
    except (Exception, SystemExit) as error:  # a stranger's module may raise anything
        raise UsageError(f"{part} could not be imported from {target}: {reason(error)}") from error
    base = resolve(BASES[part.role])
    if not (isinstance(found, type) and isinstance(base, type) and issubclass(found, base)):
        raise UsageError(f"{part} is no part of that role: {target} is not a {BASES[part.role]}")
    return found


def _require_complete(part: Part, target: str) -> None:
    """Refuses a class of objects that lacks a method, or does not say properly what it requires."""
    kind = _imported(part, target)
    if inspect.isabstract(kind):
        lacking = ", ".join(sorted(vars(kind)["__abstractmethods__"]))
        raise UsageError(f"{part} is not complete: {target} lacks {lacking}")
    for needed, of in getattr(kind, "requires", {}).items():
        if needed not in ROLES or not isinstance(of, type):
            raise UsageError(
                f"{part} requires {of!r} of {needed}; {target}.requires must name a role "
                f"({', '.join(ROLES)}) and a class"
            )


def normal(distribution: str) -> str:
    """A distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def clash(found: Sequence[Part]) -> str:
    """Who provides one name twice."""
    providers = " and ".join(
        f"{part.plugin.provider} (plugin {part.plugin.name}, {part.component.target})"
        for part in found
    )
    return f"{found[0].role} {found[0].component.name} is provided by {providers}"
