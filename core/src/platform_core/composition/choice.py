"""First pass of composition: which part plays each role, and which options still hold.

    process's defaults < config files, left to right < environment < command line

Reads names only and imports no part, so that a misspelt one is reported at once. `compose` then
builds the parser of exactly the chosen classes (`arguments`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from platform_core.component import ROLES, Option
from platform_core.composition.sources import CALLBACKS, ENVIRONMENT, Layer, variable
from platform_core.registry.parts import Plugins

DEFAULT_PROCESS = "duo"
FALLBACK = {
    "schedule": "log-linear",
    "parameterization": "mean",
    "backbone": "dit",
    "objective": "nelbo",
    "sampler": "ancestral",
}
"""What plays a role that the process says nothing about."""


@dataclass(frozen=True)
class Given:
    """One option as a config file or the environment gives it."""

    key: str
    value: Any
    source: str
    part: str | None
    """The part it was given for, where that was settled when it was given."""

    @property
    def section(self) -> str:
        """The first word of the key."""
        return self.key.partition(".")[0]

    @property
    def where(self) -> str:
        """The file or the variable."""
        return variable(self.key) if self.source == ENVIRONMENT else self.source


@dataclass(frozen=True)
class Choice:
    """One part for each role, and the options of config files and the environment that hold."""

    names: Mapping[str, str]
    origins: Mapping[str, str]
    """Where each name is from, for `--help`."""
    options: tuple[Given, ...]
    notes: tuple[str, ...]
    """What a later layer made void."""
    callbacks: tuple[str, ...] = ()
    """Those that see the training, in the order in which they were first named."""


def choose(layers: Sequence[Layer], plugins: Plugins, words: Sequence[str] = ()) -> Choice:
    """One part for each role, later layers over earlier ones.

    A layer that names another process takes with it what was only the old one's default: the roles
    and options of a complete saved config then follow the new family.

    Args:
        layers: what each source says, the weakest first.
        plugins: where parts come from.
        words: the rest of the command line, whose options of callbacks choose these.

    Raises:
        UsageError: a name is unknown, or provided twice.
    """
    choosing = _Choosing(plugins)
    for layer in layers:
        choosing.add(layer)
    names, origins = choosing.names(), choosing.origins()
    for role in ROLES:
        plugins.get(role, names[role])
    callbacks = tuple(dict.fromkeys([*choosing.callbacks, *named_on(words)]))
    for name in callbacks:
        plugins.get("callback", name)
    options = tuple(given for given in choosing.options if _of_chosen(given, callbacks))
    return Choice(names, origins, options, tuple(choosing.notes), callbacks)


def named_on(words: Sequence[str]) -> list[str]:
    """The callbacks whose options the words of a command line give."""
    begin = f"--{CALLBACKS}."
    return [callback_of(word[2:].partition("=")[0]) for word in words if word.startswith(begin)]


def callback_key(name: str) -> str:
    """The key under which the options of a callback stand."""
    return f"{CALLBACKS}.{name.replace('-', '_')}"


def callback_of(key: str) -> str:
    """The callback of a key `callbacks.NAME.option`."""
    return key.split(".")[1].replace("_", "-")


def _of_chosen(given: Given, callbacks: Sequence[str]) -> bool:
    """Whether an option is of a part, a section, or a callback that is still chosen."""
    return given.section != CALLBACKS or callback_of(given.key) in callbacks


class _Choosing:
    """The layers read so far."""

    def __init__(self, plugins: Plugins) -> None:
        self.plugins = plugins
        self.named: dict[str, tuple[str, str]] = {}
        self.options: list[Given] = []
        self.notes: list[str] = []
        self.callbacks: list[str] = []

    def names(self) -> dict[str, str]:
        """The part of every role, were this all."""
        process = self.process()
        defaults = {**FALLBACK, **process_names(self.plugins, process), "process": process}
        return {
            role: self.named[role][0] if role in self.named else defaults[role] for role in ROLES
        }

    def origins(self) -> dict[str, str]:
        """Where each name is from."""
        process = self.process()
        defaults = dict.fromkeys(process_names(self.plugins, process), f"default of {process}")
        return {
            role: self.named[role][1] if role in self.named else defaults.get(role, "default")
            for role in ROLES
        }

    def process(self) -> str:
        """The process, were this all."""
        return self.named["process"][0] if "process" in self.named else DEFAULT_PROCESS

    def add(self, layer: Layer) -> None:
        """Takes in one more layer."""
        before = self.names()
        if (
            "process" in self.named
            and layer.names.get("process", before["process"]) != self.process()
        ):
            self._follow(before["process"], layer)
        self.named.update({role: (name, layer.source) for role, name in layer.names.items()})
        self._drop_replaced(self.names())
        names = self.names()
        if layer.callbacks is not None:
            self.callbacks = list(layer.callbacks)
        for key, value in layer.options.items():
            if key.startswith(f"{CALLBACKS}."):
                self.callbacks.append(callback_of(key))
                key = key.replace("-", "_")
            section = key.partition(".")[0]
            settled = section in ROLES and ("process" in self.named or section in self.named)
            part = names[section] if settled else None
            self.options.append(Given(key, value, layer.source, part))

    def _follow(self, old: str, layer: Layer) -> None:
        """Forgets what was only a default of the process that this layer replaces."""
        new = layer.names["process"]
        goes_with = {**FALLBACK, **process_names(self.plugins, new)}
        for role, default in {**FALLBACK, **process_names(self.plugins, old)}.items():
            if role in self.named and self.named[role][0] == default and role not in layer.names:
                _, source = self.named.pop(role)
                if goes_with[role] != default:
                    self.notes.append(
                        f"{role} is {goes_with[role]}, the default of process {new}; "
                        f"{source} had {default}, the default of {old}"
                    )
        values = process_options(self.plugins, old)
        follows = [g for g in self.options if g.key in values and values[g.key] == g.value]
        self.options = [g for g in self.options if g not in follows]
        self.notes += [
            f"{g.key} follows process {new}; {g.where} had {g.value}, the default of {old}"
            for g in follows
        ]

    def _drop_replaced(self, names: Mapping[str, str]) -> None:
        """Drops the options of parts that were replaced."""
        dropped = [g for g in self.options if g.part not in (None, names.get(g.section))]
        self.options = [g for g in self.options if g not in dropped]
        groups: dict[tuple[str, str, str], list[str]] = {}
        for given in dropped:
            group = (given.section, given.part or "", given.source)
            groups.setdefault(group, []).append(given.key)
        self.notes += [
            f"{section} is {names[section]}, so options of {part} in {source} were left out: "
            f"{', '.join(keys)}"
            for (section, part, source), keys in groups.items()
        ]


def process_names(plugins: Plugins, process: str) -> dict[str, str]:
    """Role -> name, as a process sets them; nothing for a process that nobody provides."""
    return {key: str(value) for key, value in _defaults(plugins, process) if "." not in key}


def process_options(plugins: Plugins, process: str) -> dict[str, Option]:
    """role.option -> value, as a process sets them."""
    return {key: value for key, value in _defaults(plugins, process) if "." in key}


def _defaults(plugins: Plugins, process: str) -> Iterator[tuple[str, Option]]:
    for part in plugins.find("process", process):
        yield from part.component.defaults.items()
