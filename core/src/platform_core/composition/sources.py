"""Sources of names and options: config files, the environment and the command line.

    process: {name: duo}      PLATFORM_PROCESS=duo      --process duo

The sources are read before any part is imported; `choice` decides which source wins.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from platform_core.component import ROLES
from platform_core.composition.help_page import HelpPage
from platform_core.composition.words import underscored
from platform_core.errors import UsageError, did_you_mean

CALLBACKS = "callbacks"
SECTIONS = (*ROLES, "init", "data", "train", "evaluate", "sample", "track", CALLBACKS)
SEED = "seed"
INIT = "init.run"
"""The key of an option that every source may also give as `init`."""
PREFIX = "PLATFORM_"
LOADER = ("plugins", "disable_plugins", "strict_plugins")
"""Variables, without the prefix, that the loader of plugins reads."""
ENVIRONMENT = "the environment"
COMMAND_LINE = "the command line"


@dataclass(frozen=True)
class Layer:
    """The names and options that one source gives."""

    source: str
    names: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    """Key, such as train.steps or seed, and value, which may be a mapping of further keys."""
    callbacks: tuple[str, ...] | None = None
    """Callbacks that replace those of earlier layers; None if the source names none."""


@dataclass(frozen=True)
class Request:
    """Everything that the command line, config files and the environment ask for."""

    layers: tuple[Layer, ...]
    """Config files, then the environment, then the names and `--init` of the command line."""
    rest: tuple[str, ...]
    """The command line without these names, --init, --config, --help and --print_config."""
    help: bool = False
    print_config: bool = False
    page: HelpPage | None = None
    """What `--help` shows; None for every option."""


def _of_today(key: str, value: Any) -> tuple[str, Any]:
    """Translates the old option track.aim, from when Aim was the only tracker, to track.to.

    Config files of old runs, and scripts, still use the old name, so every source accepts it. A
    list as the value of track.to becomes one text with commas.
    """
    if key in ("track.to", "data.mix") and isinstance(value, list):
        return key, ",".join(map(str, value))
    if key != "track.aim":
        return key, value
    said = str(value).strip().lower()
    if said not in ("true", "false"):
        raise UsageError(
            f"track.aim is {value!r}; it was true or false, and is now --track.to auto or none"
        )
    return "track.to", "auto" if said == "true" else "none"


def read(argv: Sequence[str], environ: Mapping[str, str]) -> Request:
    """Splits the command line, its config files and the environment into layers.

    Raises:
        UsageError: a file cannot be read, a section or variable is unknown, or a name is missing.
    """
    names: dict[str, str] = {}
    options: dict[str, str] = {}
    callbacks: tuple[str, ...] | None = None
    files, rest, flags = [], [], set()
    words = iter(underscored(argv))
    for word in words:
        if word == "--":
            rest += [word, *words]
            break
        option, given, value = word.partition("=")
        role = option.removeprefix("--").removesuffix(".name")
        if option in ("-h", "--help", "--print_config") and not given:
            flags.add(option.strip("-"))
        elif option in ("--config", "--init", f"--{INIT}", f"--{CALLBACKS}") or (
            option.startswith("--") and role in ROLES
        ):
            value = value if given else next(words, "--")
            if value.startswith("--") or not value:
                raise UsageError(f"{option} needs a value")
            if option == "--config":
                files.append(read_config(Path(value)))
            elif option == f"--{CALLBACKS}":
                callbacks = callback_names(value, option)
            elif role not in ROLES:
                options[INIT] = value
            else:
                _refuse_replaced(rest, role, names.get(role, value), value)
                names[role] = value
        elif option == "--track.aim":
            value = value if given else next(words, "--")
            rest.append("--{}={}".format(*_of_today("track.aim", value)))
        else:
            rest.append(word)
    named = Layer(COMMAND_LINE, names, options, callbacks)
    layers = (*files, read_environment(environ), named)
    return Request(layers, tuple(rest), bool({"h", "help"} & flags), "print_config" in flags)


def _refuse_replaced(rest: Sequence[str], role: str, before: str, after: str) -> None:
    given = next((word for word in rest if word.startswith(f"--{role}.")), None)
    if before != after and given is not None:
        raise UsageError(
            f"{given.partition('=')[0]} was given for {role} {before}, which a later "
            f"--{role} {after} replaces; leave one of them out"
        )


def read_config(path: Path) -> Layer:
    """Reads one YAML file of sections.

    Raises:
        UsageError: the file cannot be read, or does not hold known sections of options.
    """
    from platform_core.record.yaml_tree import read_tree

    content = read_tree(path, "config file")
    if content is None:
        return Layer(str(path))
    if not isinstance(content, dict):
        raise UsageError(f"config file {path} holds no sections, such as process: {{name: duo}}")
    names: dict[str, str] = {}
    options: dict[str, Any] = {}
    callbacks: tuple[str, ...] | None = None
    for section, values in content.items():
        _require_known(section, f"{path}: ", (*SECTIONS, SEED))
        if section == SEED:
            options[SEED] = values
            continue
        if section == CALLBACKS and not isinstance(values, dict | None):
            callbacks = callback_names(values, f"{path}: {section}")
            continue
        if isinstance(values, str) and (section in ROLES or f"{section}.run" == INIT):
            values = {"name" if section in ROLES else "run": values}
        if not isinstance(values, dict | None):
            raise UsageError(f"{path}: {section} is {values!r}; it must hold options by name")
        given = dict(values or {})
        if section in ROLES and "name" in given:
            names[section] = _name(given.pop("name"), f"{path}: {section}")
        options.update(_of_today(f"{section}.{option}", value) for option, value in given.items())
    return Layer(str(path), names, options, callbacks)


def callback_names(value: object, where: str) -> tuple[str, ...]:
    """The names of callbacks in a list or a comma-separated text; `none` stands for no names.

    Raises:
        UsageError: the value is neither.
    """
    words = value.split(",") if isinstance(value, str) else value
    if not isinstance(words, list) or not all(isinstance(word, str) and word for word in words):
        raise UsageError(f"{where} is {value!r}; it must be callback names, separated by commas")
    return () if words == ["none"] else tuple(word.strip().replace("_", "-") for word in words)


def read_environment(environ: Mapping[str, str]) -> Layer:
    """Reads variables such as PLATFORM_PROCESS, PLATFORM_TRAIN__STEPS and PLATFORM_SEED.

    Other variables that begin with PLATFORM_ may belong to another program and are ignored, unless
    the name is close to a known one.

    Raises:
        UsageError: a variable is misspelt or names an unknown section.
    """
    names: dict[str, str] = {}
    options: dict[str, str] = {}
    callbacks: tuple[str, ...] | None = None
    for name in sorted(name for name in environ if name.startswith(PREFIX)):
        section, *path = name.removeprefix(PREFIX).lower().split("__")
        if section in ROLES and path in ([], ["name"]):
            names.update({section: environ[name]} if environ[name] else {})
        elif section == SEED and not path:
            options[SEED] = environ[name]
        elif f"{section}.run" == INIT and not path:
            options[INIT] = environ[name]
        elif section == CALLBACKS and not path:
            callbacks = callback_names(environ[name], name)
        elif path:
            _require_known(section, f"{name}: ", SECTIONS)
            key, value = _of_today(".".join([section, *path]), environ[name])
            options[key] = value
        else:
            _refuse_nearly(name, section)
    return Layer(ENVIRONMENT, names, options, callbacks)


def variable(key: str) -> str:
    """The name of the environment variable that gives an option."""
    return PREFIX + key.replace(".", "__").upper()


def _require_known(section: object, where: str, known: Sequence[str]) -> None:
    if section not in known:
        near = did_you_mean(str(section), known) or f"; known: {', '.join(known)}"
        raise UsageError(f"{where}unknown section {section!r}{near}")


def _refuse_nearly(name: str, word: str) -> None:
    import difflib

    known = [*ROLES, SEED, "init", CALLBACKS, *LOADER]
    near = [] if word in known else difflib.get_close_matches(word, known, n=1, cutoff=0.85)
    if near:
        raise UsageError(f"unknown variable {name}; did you mean {variable(near[0])}?")


def _name(value: object, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise UsageError(f"{where} is {value!r}; it must be the name of a part")
    return value
