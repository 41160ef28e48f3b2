"""First pass of composition: which part fills each role, and which options still apply.

    process's defaults < config files, left to right < environment < command line

Reads names only and imports no part, so that a misspelt name is reported at once. `compose` then
builds the parser of exactly the chosen classes (`parser.Arguments`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from platform_core.component import ROLES, Option
from platform_core.composition.sources import CALLBACKS, ENVIRONMENT, Layer, variable
from platform_core.errors import UsageError
from platform_core.registry.parts import Plugins

DEFAULT_PROCESS = "duo"
MOST_INSIDE = 4
"""Parts that may stand inside of each other."""
FALLBACK = {
    "schedule": "log-linear",
    "parameterization": "mean",
    "backbone": "dit",
    "objective": "nelbo",
    "sampler": "ancestral",
}
"""Role -> the part that fills the role if the process names none."""


@dataclass(frozen=True)
class Given:
    """One option as a config file or the environment gives it."""

    key: str
    value: Any
    source: str
    part: str | None
    """The part that the option was given for; None if no layer had named that part by then."""

    @property
    def section(self) -> str:
        """The first word of the key, such as train of train.steps."""
        return self.key.partition(".")[0]

    @property
    def where(self) -> str:
        """The config file or the environment variable that gives the option."""
        return variable(self.key) if self.source == ENVIRONMENT else self.source


@dataclass(frozen=True)
class Choice:
    """One part for each role, and the options of config files and the environment that apply."""

    names: Mapping[str, str]
    origins: Mapping[str, str]
    """Role -> the source of the name, for `--help`."""
    options: tuple[Given, ...]
    notes: tuple[str, ...]
    """Notes to the user on names and options that a later layer made void."""
    callbacks: tuple[str, ...] = ()
    """Names of callbacks, in the order in which they were first named."""
    inner: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Key -> kind and name of each component that another one takes: sampler.inner, and further
    sampler.inner.inner (`Component.inside`)."""

    @property
    def parts(self) -> dict[str, tuple[str, str]]:
        """Key -> kind and name of every chosen part, inner ones after those around them."""
        found = {}
        for role, name in self.names.items():
            found[role] = (role, name)
            found |= {k: chosen for k, chosen in self.inner.items() if k.startswith(f"{role}.")}
        return found


def choose(layers: Sequence[Layer], plugins: Plugins, words: Sequence[str] = ()) -> Choice:
    """Chooses one part for each role; later layers override earlier ones.

    If a layer names another process, names and options that equal the old process's defaults change
    to the new process's defaults. A complete saved config thus follows the new process.

    Args:
        layers: the names and options of each source, the weakest source first.
        plugins: the installed plugins, which provide the parts.
        words: the rest of the command line; an option of a callback also chooses the callback.

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
    options = [given for given in choosing.options if _of_chosen(given, callbacks)]
    inner: dict[str, tuple[str, str]] = {}
    for role in ROLES:
        found, options, notes = _inside(plugins, role, (role, names[role]), options, words)
        inner |= found
        choosing.notes += notes
    return Choice(names, origins, tuple(options), tuple(choosing.notes), callbacks, inner)


def _inside(
    plugins: Plugins,
    key: str,
    outer: tuple[str, str],
    options: list[Given],
    words: Sequence[str],
) -> tuple[dict[str, tuple[str, str]], list[Given], list[str]]:
    """The components inside of one by key, the options without those of components that were
    replaced, and notes on these.

    Args:
        plugins: the installed plugins.
        key: of the component around them.
        outer: its kind and name.
        options: of config files and the environment.
        words: of the command line.

    Raises:
        UsageError: a name is unknown.
    """
    found: dict[str, tuple[str, str]] = {}
    notes: list[str] = []
    for parameter, (kind, default) in plugins.get(*outer).component.inside(outer[0]).items():
        own = f"{key}.{parameter}"
        options = [each for given in options for each in _opened(given, own)]
        name, options, replaced = _named_inside(own, default, options, words)
        if replaced:
            sources = ", ".join(dict.fromkeys(given.source for given in replaced))
            keys = ", ".join(given.key for given in replaced)
            notes.append(f"{own} is {name}; left out of {sources}: {keys}")
        plugins.get(kind, name)
        if own.count(".") > MOST_INSIDE:
            raise UsageError(f"{own} is {name}, inside of {MOST_INSIDE} others; leave it out")
        deeper, options, more = _inside(plugins, own, (kind, name), options, words)
        found |= {own: (kind, name), **deeper}
        notes += more
    return found, options, notes


def _opened(given: Given, key: str) -> list[Given]:
    """The options of a mapping that is given for an inner part."""
    if given.key != key or not isinstance(given.value, Mapping):
        return [given]
    named_first = sorted(given.value.items(), key=lambda item: item[0] != "name")
    return [replace(given, key=f"{key}.{name}", value=value) for name, value in named_first]


def _named_inside(
    key: str, default: str, options: list[Given], words: Sequence[str]
) -> tuple[str, list[Given], list[Given]]:
    """The last name that is given for an inner part, the options that are not of an earlier one,
    and those that are.
    """
    name, own, others = default, list[tuple[Given, str]](), list[Given]()
    for given in options:
        if given.key in (key, f"{key}.name"):
            name = str(given.value)
        elif given.key.startswith(f"{key}."):
            own.append((given, name))
        else:
            others.append(given)
    for place, word in enumerate(words):
        option, is_given, value = word.partition("=")
        if option in (f"--{key}", f"--{key}.name"):
            name = value if is_given else "".join(words[place + 1 : place + 2])
            if not name or name.startswith("--"):
                raise UsageError(f"{option} needs a value")
    kept = [given for given, of in own if of == name]
    return name, [*others, *kept], [given for given, of in own if of != name]


def named_on(words: Sequence[str]) -> list[str]:
    """The names of the callbacks whose options a command line gives."""
    begin = f"--{CALLBACKS}."
    return [callback_of(word[2:].partition("=")[0]) for word in words if word.startswith(begin)]


def callback_key(name: str) -> str:
    """The key of a callback's options: callbacks.NAME, with `_` for `-`."""
    return f"{CALLBACKS}.{name.replace('-', '_')}"


def callback_of(key: str) -> str:
    """The name of the callback in a key `callbacks.NAME.option`."""
    return key.split(".")[1].replace("_", "-")


def _of_chosen(given: Given, callbacks: Sequence[str]) -> bool:
    """Whether an option belongs to a chosen callback, or to a part or section."""
    return given.section != CALLBACKS or callback_of(given.key) in callbacks


class _Choosing:
    """The names and options of the layers read so far."""

    def __init__(self, plugins: Plugins) -> None:
        self.plugins = plugins
        self.named: dict[str, tuple[str, str]] = {}
        self.options: list[Given] = []
        self.notes: list[str] = []
        self.callbacks: list[str] = []

    def names(self) -> dict[str, str]:
        """Role -> name, if no more layers followed."""
        process = self.process()
        defaults = {**FALLBACK, **process_names(self.plugins, process), "process": process}
        return {
            role: self.named[role][0] if role in self.named else defaults[role] for role in ROLES
        }

    def origins(self) -> dict[str, str]:
        """Role -> the source of the name."""
        process = self.process()
        defaults = dict.fromkeys(process_names(self.plugins, process), f"default of {process}")
        return {
            role: self.named[role][1] if role in self.named else defaults.get(role, "default")
            for role in ROLES
        }

    def process(self) -> str:
        """The name of the process, if no more layers followed."""
        return self.named["process"][0] if "process" in self.named else DEFAULT_PROCESS

    def add(self, layer: Layer) -> None:
        """Adds a layer, which overrides the layers before it."""
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
        """Forgets names and options that equal a default of the process that a layer replaces."""
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
    """Role -> name, the defaults of a process; empty for a process that no plugin provides."""
    return {key: str(value) for key, value in _defaults(plugins, process) if "." not in key}


def process_options(plugins: Plugins, process: str) -> dict[str, Option]:
    """Key role.option -> value, the defaults of a process."""
    return {key: value for key, value in _defaults(plugins, process) if "." in key}


def _defaults(plugins: Plugins, process: str) -> Iterator[tuple[str, Option]]:
    for part in plugins.find("process", process):
        yield from part.component.defaults.items()
