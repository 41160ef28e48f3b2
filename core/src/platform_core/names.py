"""First pass of composition: which part plays each role, and which options still hold.

    process's defaults < config files, left to right < environment < command line

Reads names only and imports no part, so that a misspelt one is reported at once. `compose` then
builds the parser of exactly the chosen classes (`arguments`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from platform_core.component import ROLES, Option
from platform_core.errors import UsageError
from platform_core.registry import Plugins
from platform_core.wording import did_you_mean

DEFAULT_PROCESS = "duo"
FALLBACK = {
    "schedule": "log-linear",
    "parameterization": "mean",
    "backbone": "dit",
    "objective": "nelbo",
    "sampler": "ancestral",
}
"""What plays a role that the process says nothing about."""

SECTIONS = (*ROLES, "data", "train", "evaluate", "sample", "track")
SEED = "seed"
PREFIX = "PLATFORM_"
LOADER = ("plugins", "disable_plugins", "strict_plugins")
"""Variables that `plugins` reads."""
ENVIRONMENT = "the environment"
COMMAND_LINE = "the command line"


@dataclass(frozen=True)
class Layer:
    """What one source says."""

    source: str
    names: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    """Key, such as train.steps or seed, and value, which may be a mapping of further keys."""


@dataclass(frozen=True)
class Request:
    """All that was asked for."""

    layers: tuple[Layer, ...]
    """Config files, then the environment, then the names of the command line."""
    rest: tuple[str, ...]
    """The command line without names, config files, help and print_config."""
    help: bool = False
    print_config: bool = False


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


def read(argv: Sequence[str], environ: Mapping[str, str]) -> Request:
    """Takes apart what the command line, its config files and the environment say.

    Raises:
        UsageError: a file cannot be read, a section or variable is unknown, or a name is missing.
    """
    names: dict[str, str] = {}
    files, rest, flags = [], [], set()
    words = iter(argv)
    for word in words:
        if word == "--":
            rest += [word, *words]
            break
        option, given, value = word.partition("=")
        role = option.removeprefix("--").removesuffix(".name")
        if option in ("-h", "--help", "--print_config") and not given:
            flags.add(option.strip("-"))
        elif option == "--config" or (option.startswith("--") and role in ROLES):
            value = value if given else next(words, "--")
            if value.startswith("--") or not value:
                raise UsageError(f"{option} needs a value")
            if option == "--config":
                files.append(read_config(Path(value)))
            else:
                _refuse_replaced(rest, role, names.get(role, value), value)
                names[role] = value
        else:
            rest.append(word)
    layers = (*files, read_environment(environ), Layer(COMMAND_LINE, names))
    return Request(layers, tuple(rest), bool({"h", "help"} & flags), "print_config" in flags)


def _refuse_replaced(rest: Sequence[str], role: str, before: str, after: str) -> None:
    given = next((word for word in rest if word.startswith(f"--{role}.")), None)
    if before != after and given is not None:
        raise UsageError(
            f"{given.partition('=')[0]} was given for {role} {before}, which a later "
            f"--{role} {after} replaces; leave one of them out"
        )


def read_config(path: Path) -> Layer:
    """One YAML file of sections.

    Raises:
        UsageError: it cannot be read, or is not of that form.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"config file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"config file {path} is not UTF-8 text") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise UsageError(f"config file {path} is not YAML: line {line}: {error.problem}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"config file {path} is not YAML: {error}") from error
    if content is None:
        return Layer(str(path))
    if not isinstance(content, dict):
        raise UsageError(f"config file {path} holds no sections, such as process: {{name: duo}}")
    names: dict[str, str] = {}
    options: dict[str, Any] = {}
    for section, values in content.items():
        _require_known(section, f"{path}: ", (*SECTIONS, SEED))
        if section == SEED:
            options[SEED] = values
            continue
        values = {"name": values} if section in ROLES and isinstance(values, str) else values
        if not isinstance(values, dict | None):
            raise UsageError(f"{path}: {section} is {values!r}; it must hold options by name")
        given = dict(values or {})
        if section in ROLES and "name" in given:
            names[section] = _name(given.pop("name"), f"{path}: {section}")
        options.update({f"{section}.{option}": value for option, value in given.items()})
    return Layer(str(path), names, options)


def read_environment(environ: Mapping[str, str]) -> Layer:
    """PLATFORM_PROCESS, PLATFORM_TRAIN__STEPS, PLATFORM_SEED and their like.

    Others that begin with PLATFORM_ may be a stranger's and are left alone, unless one is nearly a
    name of ours.

    Raises:
        UsageError: a variable is misspelt.
    """
    names: dict[str, str] = {}
    options: dict[str, str] = {}
    for name in sorted(name for name in environ if name.startswith(PREFIX)):
        section, *path = name.removeprefix(PREFIX).lower().split("__")
        if section in ROLES and path in ([], ["name"]):
            names.update({section: environ[name]} if environ[name] else {})
        elif section == SEED and not path:
            options[SEED] = environ[name]
        elif path:
            _require_known(section, f"{name}: ", SECTIONS)
            options[".".join([section, *path])] = environ[name]
        else:
            _refuse_nearly(name, section)
    return Layer(ENVIRONMENT, names, options)


def variable(key: str) -> str:
    """The environment variable of an option."""
    return PREFIX + key.replace(".", "__").upper()


def _require_known(section: object, where: str, known: Sequence[str]) -> None:
    if section not in known:
        near = did_you_mean(str(section), known) or f"; known: {', '.join(known)}"
        raise UsageError(f"{where}unknown section {section!r}{near}")


def _refuse_nearly(name: str, word: str) -> None:
    import difflib

    known = [*ROLES, SEED, *LOADER]
    near = [] if word in known else difflib.get_close_matches(word, known, n=1, cutoff=0.85)
    if near:
        raise UsageError(f"unknown variable {name}; did you mean {variable(near[0])}?")


def _name(value: object, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise UsageError(f"{where} is {value!r}; it must be the name of a part")
    return value


def choose(layers: Sequence[Layer], plugins: Plugins) -> Choice:
    """One part for each role, later layers over earlier ones.

    A layer that names another process takes with it what was only the old one's default: the roles
    and options of a complete saved config then follow the new family.

    Raises:
        UsageError: a name is unknown, or provided twice.
    """
    choosing = _Choosing(plugins)
    for layer in layers:
        choosing.add(layer)
    names, origins = choosing.names(), choosing.origins()
    for role in ROLES:
        plugins.get(role, names[role])
    return Choice(names, origins, tuple(choosing.options), tuple(choosing.notes))


class _Choosing:
    """The layers read so far."""

    def __init__(self, plugins: Plugins) -> None:
        self.plugins = plugins
        self.named: dict[str, tuple[str, str]] = {}
        self.options: list[Given] = []
        self.notes: list[str] = []

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
        for key, value in layer.options.items():
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
