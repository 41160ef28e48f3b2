"""The parts that plugins provide, by role and name, and messages on parts that are unavailable.

`loading` fills this registry; composition, `platform plugins` and tests read it. A part's class is
not imported before `load` needs it.
"""

import importlib
import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from platform_core.component import KINDS, ROLES, Component
from platform_core.errors import UsageError, did_you_mean, either, reason, with_article

if TYPE_CHECKING:
    from platform_core.record.cards import Metric

BASES = {
    "process": "platform_core.process:Process",
    "schedule": "platform_core.schedule:Schedule",
    "parameterization": "platform_core.parameterization:Parameterization",
    "backbone": "platform_core.backbone:Backbone",
    "objective": "platform_core.objective:Objective",
    "sampler": "platform_core.sampler:Sampler",
    "evaluation": "platform_core.evaluation.evaluation:Evaluation",
    "tracker": "platform_core.record.tracker:Tracker",
    "tokenizer": "platform_core.data.tokenizer.base:Tokenizer",
    "callback": "platform_core.callback:Callback",
    "reward": "platform_core.reward:Reward",
}
"""Kind -> abstract class of its components; components of other kinds are functions."""

FIRST_PARTY = {
    "process": {name: name for name in ("ar", "d3pm", "duo", "gidd", "mdlm", "sedd")},
    "schedule": {"gaussian": "duo", "geometric": "sedd", "hybrid": "gidd"},
    "backbone": {"dit": "dit", "hf": "hf"},
    "objective": {
        "block-nelbo": "blocks",
        "curriculum": "duo",
        "denoising-cross-entropy": "duo",
        "discrete-consistency": "duo",
        "discrete-nelbo": "d3pm",
        "hybrid-nelbo": "gidd",
        "masked-nelbo": "mdlm",
        "next-token": "ar",
        "ordered-likelihood": "orders",
        "score-entropy": "sedd",
        "sdtt": "mdlm",
        "uniform-nelbo": "duo",
    },
    "parameterization": {
        "denoiser": "duo",
        "next-token": "ar",
        "score": "sedd",
        "subs": "mdlm",
        "vocabulary": "gidd",
    },
    "sampler": {
        "left-to-right": "ar",
        "best-of": "guidance",
        "blocks": "blocks",
        "cached-ancestral": "mdlm",
        "d-cbg": "guidance",
        "first-hitting": "mdlm",
        "maskgit": "orders",
        "ordered": "orders",
        "particles": "guidance",
        "psi": "duo",
        "remdm": "mdlm",
        "self-correction": "gidd",
        "semi-autoregressive": "mdlm",
        "analytic": "sedd",
        "euler": "sedd",
    },
    "evaluation": {"judge": "judge", "ordered": "orders", "tasks": "harness"},
    "tracker": {"aim": "aim"},
    "corpus": dict.fromkeys(
        [
            "json",
            "parquet",
            "saved",
            "yaml",
            "yml",
            "ag-news",
            "fineweb-edu",
            "lambada",
            "lm1b",
            "openwebtext",
            "ptb",
            "scientific-papers-arxiv",
            "scientific-papers-pubmed",
            "text8",
            "wikitext103",
            "wikitext2",
        ],
        "hub",
    ),
    "launcher": {"local": "sweep", "slurm": "sweep"},
    "reward": dict.fromkeys(("entropy", "label", "likelihood", "matches"), "guidance"),
}
"""Kind -> name of a part -> the platform's own plugin that provides it, for error messages."""

FIRST_PARTY_OPTIONS = {
    "platform eval": {
        **dict.fromkeys(("judge", "judge_length"), "judge"),
        **dict.fromkeys(
            ("tasks", "limit", "task_path", "trust_tasks", "num_fewshot", "draws", "context"),
            "harness",
        ),
        **dict.fromkeys(("order", "at_once"), "orders"),
    }
}
"""Verb -> option -> the platform's own plugin that adds the option to the verb."""

Status = Literal["loaded", "broken", "conflict", "disabled"]


OTHER_NAMES: Mapping[str, tuple[str, ...]] = {
    "masked": ("mdlm", "absorbing"),
    "mask": ("mdlm", "absorbing"),
    "llada": ("mdlm",),
    "udlm": ("uniform", "duo"),
    "multinomial": ("uniform",),
    "autoregressive": ("ar", "next-token"),
    "causal": ("ar",),
    "gpt": ("ar", "hf"),
    "gpt2": ("hf",),
    "bert": ("hf",),
    "transformer": ("dit",),
    "ddit": ("dit",),
    "linear": ("log-linear",),
    "loglinear": ("log-linear",),
    "ddpm": ("ancestral",),
    "ddpm_cache": ("ancestral",),
    "elbo": ("nelbo",),
}
"""Name of a part in other programs -> names of similar parts in the platform."""
NAMED = ("file", "module")
"""What stands for the distribution of a plugin that `-p` names."""


@dataclass(frozen=True)
class Plugin:
    """A plugin, as the loader found it."""

    name: str
    distribution: str
    """Name of the distribution, or `file` or `module` for a plugin named with `-p`."""
    version: str
    value: str
    """The module, or the path of the file."""
    status: Status = "loaded"
    reason: str = ""
    traceback: str = ""
    hooks: tuple[str, ...] = ()
    components: tuple[tuple[str, Component], ...] = ()
    """Kind and component, in the order in which hooks returned them."""
    metrics: tuple["Metric", ...] = ()

    def origin(self) -> dict[str, str]:
        """Its distribution and version; or the file or module, with the digest of the file."""
        if self.distribution not in NAMED:
            return {"distribution": self.distribution, "version": self.version}
        from platform_core.record.files import digest

        found = {self.distribution: self.value}
        module = sys.modules.get(self.value)
        path = self.value if self.distribution == "file" else getattr(module, "__file__", None)
        return found | ({"digest": digest(Path(path))} if path and Path(path).is_file() else {})

    @property
    def provider(self) -> str:
        """The distribution and its version, or the path of the file or name of the module."""
        return f"{self.distribution} {self.version or self.value}"

    def goes_by(self, name: str) -> bool:
        """Whether a name is the plugin's or, in any spelling, its distribution's."""
        return name == self.name or normal(name) == normal(self.distribution)


@dataclass(frozen=True)
class Part:
    """A component of one role or kind of service, and the plugin that provides it."""

    role: str
    component: Component
    plugin: Plugin

    def __str__(self) -> str:
        plugin = self.plugin
        return f"{self.role} {self.component.name} of plugin {plugin.name} ({plugin.provider})"


class Plugins:
    """All installed plugins, and their parts by role and name."""

    def __init__(self, plugins: Sequence[Plugin]) -> None:
        self.plugins = tuple(plugins)
        self._parts: dict[str, dict[str, list[Part]]] = {kind: {} for kind in KINDS}
        for plugin in self.plugins:
            for role, component in plugin.components:
                part = Part(role, component, plugin)
                self._parts[role].setdefault(component.name, []).append(part)

    def names(self, role: str) -> list[str]:
        """The names of a role's parts, in alphabetical order."""
        return sorted(self._parts[role])

    def parts(self, kinds: Sequence[str] = ROLES) -> Iterator[Part]:
        """All parts of the roles, or the components of other kinds, by kind and name."""
        for kind in kinds:
            for name in self.names(kind):
                yield from self._parts[kind][name]

    def metrics(self) -> dict[str, "Metric"]:
        """The metrics of all plugins by name.

        Raises:
            UsageError: two plugins provide a metric of the same name.
        """
        found: dict[str, tuple[Metric, Plugin]] = {}
        for plugin in self.plugins:
            for metric in plugin.metrics:
                if metric.name in found:
                    other = found[metric.name][1]
                    raise UsageError(
                        f"metric {metric.name} is provided by {other.provider} and "
                        f"{plugin.provider}; disable one, for example -p no:{plugin.name}"
                    )
                found[metric.name] = metric, plugin
        return {name: metric for name, (metric, _) in found.items()}

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

    def provenance(self, chosen: Iterable[tuple[str, str]]) -> dict[str, dict[str, Any]]:
        """Every loaded plugin by name: its distribution and version, or its file and its digest;
        and those of the chosen parts, as kind and name, that it brings.
        """
        brings: dict[str, list[str]] = {}
        for kind, name in chosen:
            for part in self.find(kind, name):
                brings.setdefault(part.plugin.name, []).append(f"{kind} {name}")
        return {
            plugin.name: {
                **plugin.origin(),
                **({"parts": brings[plugin.name]} if plugin.name in brings else {}),
            }
            for plugin in sorted(self.plugins, key=lambda plugin: plugin.name)
            if plugin.status == "loaded"
        }

    def load(self, role: str, name: str) -> Any:
        """The class or function of this name, imported now.

        Raises:
            UsageError: as `get`; or the part cannot be imported, is not of the role or kind, or is
                not complete.
        """
        part = self.get(role, name)
        found = _imported(part, part.component.target)
        for target in part.component.forms.values() or (part.component.target,):
            _require_complete(part, target)
        return found

    def forms(self, role: str, name: str) -> Mapping[str, type]:
        """The classes that a part's objects can have, by the option that selects each ("states
        uniform"); for a part without such an option, only the part's own class, under "".

        Raises:
            UsageError: as `load`.
        """
        chosen = self.load(role, name)
        part = self.get(role, name)
        by_option = part.component.forms.items()
        return {form: _imported(part, target) for form, target in by_option} or {"": chosen}

    def form(self, role: str, name: str, options: Mapping[str, object]) -> type:
        """The class of a part's objects under some of its options.

        Raises:
            UsageError: as `load`; or the options ask for a class that the part does not have.
        """
        by_option = self.forms(role, name)
        for form, kind in by_option.items():
            option, _, value = form.partition(" ")
            if not option or str(options.get(option)) == value:
                return kind
        raise UsageError(f"{role} {name} needs one of its options: {either(list(by_option))}")

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
        called = [part for part in OTHER_NAMES.get(name.lower(), ()) if part in self._parts[role]]
        near = f"; did you mean {either(called)}?" if called else ""
        near = near or did_you_mean(name, self._parts[role])
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
        said += self.left_out()
        return head + "; ".join(said)

    def left_out(self) -> list[str]:
        """A line for each plugin that is not loaded and may provide a missing part."""
        return [
            f"plugin {p.name} ({p.provider}) is {_STATE[p.status]} and may provide it"
            f"{'' if p.status == 'disabled' else f': {p.reason}'}"
            for p in self.plugins
            if p.status != "loaded"
        ]

    def absence(self, plugin: str) -> str:
        """Why one of the platform's own plugins provides nothing, and what to do."""
        found = [p for p in self.plugins if p.goes_by(f"dlm-platform-{plugin}")]
        if found:
            return f"it is {found[0].status}"
        return f"it is not installed: pip install -e plugins/{plugin} in the platform's repository"

    def missing_option(self, command: str, option: str) -> str:
        """Which of the platform's plugins adds an option that a command lacks, and how to get it.

        Args:
            command: name of the command's parser, such as "platform eval RUN".
            option: name of the option, without its dashes.

        Returns:
            The end of a message; empty if none of the platform's plugins adds such an option.
        """
        verb = " ".join(command.split()[:2])
        plugin = FIRST_PARTY_OPTIONS.get(verb, {}).get(option)
        if plugin is None:
            return ""
        return f"it comes with dlm-platform-{plugin}: {self.absence(plugin)}"

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


def _imported(part: Part, target: str) -> Any:
    """The class or function at a target of a part."""
    try:
        found = resolve(target)
    except (Exception, SystemExit) as error:  # third-party code may raise anything
        raise UsageError(f"{part} could not be imported from {target}: {reason(error)}") from error
    if part.role not in BASES:
        if not callable(found):
            raise UsageError(f"{part} cannot be called: {target} is not a function")
        return found
    base = resolve(BASES[part.role])
    if not (isinstance(found, type) and isinstance(base, type) and issubclass(found, base)):
        raise UsageError(f"{part} is not a part of that role: {target} is not a {BASES[part.role]}")
    return found


def _require_complete(part: Part, target: str) -> None:
    """Refuse a class that leaves a method abstract, or whose `requires` is invalid."""
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
    """A distribution's name, normalized as package indexes do."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def clash(found: Sequence[Part]) -> str:
    """A message that names all plugins that provide a part of one name."""
    providers = " and ".join(
        f"{part.plugin.provider} (plugin {part.plugin.name}, {part.component.target})"
        for part in found
    )
    return f"{found[0].role} {found[0].component.name} is provided by {providers}"
