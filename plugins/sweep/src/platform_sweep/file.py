"""The YAML file of a sweep, read strictly, and the points that its axes span.

    base: [experiments/sotu/small.yaml]         configs under all trials
    set: {train.steps: 400}                     options of all trials
    axes:
      process: [duo, mdlm]                      one part or option
      size:                                     coupled options; the name is only a label
        - {label: small, backbone.hidden_size: 64, backbone.num_heads: 4}
        - {label: large, backbone.hidden_size: 128, backbone.num_heads: 8}
    exclude: [{process: duo, size: large}]
    seeds: 3                                    1, 2, 3; or a list
    evaluate:                                   `platform eval RUN` after each trial, lists expanded
      - {sampler.steps: [8, 32], sample.number: 64, only: {process: duo}}
    slurm: {partition: gpu, time: 120}          for --launcher slurm

Paths are relative to the current directory, as on the command line.
"""

import itertools
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from platform_core.component import ROLES
from platform_core.composition.options import too_many
from platform_core.composition.sources import SECTIONS, SEED
from platform_core.errors import SeveralMistakesError, UsageError, did_you_mean
from platform_core.record.yaml_tree import read_tree

ONLY = "only"
"""Key of a measurement that names the trials to measure."""

LABEL = "label"
"""Key of a value with several options that names the value."""

Options = Mapping[str, Any]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Value:
    """One value of an axis: its label, and the options that it sets."""

    label: str
    options: Options
    plain: Any = None
    """The value as in the file, unless it is a mapping."""


@dataclass(frozen=True)
class SlurmOptions:
    """Options of a trial's job for SLURM; `None` leaves the choice to the cluster.

    Args:
        partition: queue.
        account: account to charge.
        qos: quality of service.
        time: minutes until a job has to save itself and is queued again.
        cpus: processor cores.
        gpus: graphics cards.
        mem: memory, such as 16GB.
        signal_seconds: seconds before the end of its time at which a job is told to save itself.
        timeouts: how often a job may run out of time.
        setup: shell commands that run before the job.
        extra: further options of sbatch by name.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    time: int = 24 * 60
    cpus: int = 1
    gpus: int = 0
    mem: str | None = None
    signal_seconds: int = 120
    timeouts: int = 100
    setup: Sequence[str] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, content: Any, where: str) -> "SlurmOptions":
        """Read the options from a mapping, strictly.

        Raises:
            UsageError: the mapping has an unknown key, or a value of the wrong type.
        """
        values = _mapping(content, where)
        _require_known(values, [option.name for option in fields(cls)], where)
        for name in ("time", "cpus", "gpus", "signal_seconds", "timeouts"):
            least = 1 if name in ("time", "cpus") else 0
            value = values.get(name, least)
            if type(value) is not int or value < least:
                raise UsageError(
                    f"{where}.{name} is {value!r}; it must be a whole number of at least {least}"
                )
        for name in ("partition", "account", "qos", "mem"):
            if not isinstance(values.get(name), str | None):
                raise UsageError(f"{where}.{name} is {values[name]!r}; it must be text")
        setup = values.get("setup", [])
        setup = [setup] if isinstance(setup, str) else setup
        if not _texts(setup):
            raise UsageError(f"{where}.setup must be a list of shell commands")
        extra = _mapping(values.get("extra"), f"{where}.extra")
        return cls(**{**values, "setup": tuple(setup), "extra": extra})


@dataclass(frozen=True)
class Measurement:
    """One call of `platform eval` after a trial's run.

    Args:
        options: options of the call.
        only: labels or options that a trial must have, as in `exclude`; empty for all trials.
    """

    options: Options
    only: Options = field(default_factory=dict)


@dataclass(frozen=True)
class SweepFile:
    """The content of a sweep's file; the module's docstring explains the keys."""

    axes: Mapping[str, Sequence[Value]]
    """Values of each axis, in the order of the file; seeds last."""
    base: Sequence[str] = ()
    set: Options = field(default_factory=dict)
    exclude: Sequence[Options] = ()
    evaluate: Sequence[Measurement] = ()
    """Measurements, with lists of options expanded."""
    slurm: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Point:
    """One combination of values of the axes."""

    labels: Mapping[str, str]
    options: Options
    evaluate: Sequence[Options] = ()
    """Options of the point's measurements."""


MOST_VALUES = 10_000
"""The most seeds, trials or measurements of one sweep."""

KEYS = ("base", "set", "axes", "exclude", "seeds", "evaluate", "slurm")


def read_sweep(path: Path) -> SweepFile:
    """Read the file of a sweep.

    Raises:
        UsageError: the file cannot be read, or is not a valid sweep; the message holds all reasons.
    """
    where = str(path)
    content = _mapping(read_tree(path, "sweep"), where)
    found = _Found()
    found.of(_require_known, content, KEYS, where)
    base = found.of(_base, content, where) or []
    axes = _axes(content, where, found)
    common = found.of(_mapping, content.get("set"), f"{where}: set") or {}
    for key in common:
        found.of(_require_option, key, f"{where}: set")
    exclude = found.of(_exclusions, content.get("exclude"), axes, f"{where}: exclude") or []
    entries = found.of(_list, content.get("evaluate"), f"{where}: evaluate") or []
    evaluate: list[Measurement] = []
    for number, entry in enumerate(entries, 1):
        several = partial(_measurements, entry, axes, f"{where}: evaluate {number}")
        evaluate += found.of(_all, several) or []
    slurm = found.of(_mapping, content.get("slurm"), f"{where}: slurm") or {}
    found.raise_any()
    return SweepFile(
        axes=axes, base=base, set=common, exclude=exclude, evaluate=evaluate, slurm=slurm
    )


def _all(several: Callable[[], Iterator[Result]]) -> list[Result]:
    return list(several())


class _Found:
    """Mistakes of a file, collected to be told at once."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def of(self, read: Callable[..., Result], *arguments: Any) -> Result | None:
        """What a function returns, or None if it finds a mistake."""
        try:
            return read(*arguments)
        except UsageError as error:
            self.messages.append(str(error))
            return None

    def raise_any(self) -> None:
        if len(self.messages) == 1:
            raise UsageError(self.messages[0])
        if self.messages:
            listed = "".join(f"\n  {message}" for message in self.messages)
            raise SeveralMistakesError(
                f"{len(self.messages)} mistakes, so nothing was started:{listed}"
            )


def _base(content: Mapping[str, Any], where: str) -> list[str]:
    base = content.get("base") or []
    base = [base] if isinstance(base, str) else base
    if not _texts(base):
        raise UsageError(f"{where}: base is {base!r}; it must be a list of config files")
    return list(base)


def _axes(content: Mapping[str, Any], where: str, found: _Found) -> dict[str, list[Value]]:
    """The axes that can be read; of those that cannot, `found` has the mistakes."""
    given = found.of(_mapping, content.get("axes"), f"{where}: axes") or {}
    axes = {
        str(name): found.of(_axis, str(name), values, f"{where}: axis {name}") or []
        for name, values in given.items()
    }
    if content.get("seeds") is not None:
        if SEED in axes:
            found.messages.append(f"{where}: seeds and an axis seed say the same; leave one out")
        seeds = found.of(_seeds, content["seeds"], where)
        axes[SEED] = (found.of(_axis, SEED, seeds, f"{where}: seeds") if seeds else None) or []
    if not axes and not found.messages:
        found.messages.append(f"{where}: nothing varies; give axes, such as process: [duo, mdlm]")
    return axes


def expand(sweep: SweepFile) -> list[Point]:
    """All combinations of values that no exclusion names, the last axis moving fastest.

    Raises:
        UsageError: an exclusion or a measurement names no combination, nothing is left, or there
            are too many combinations.
    """
    trials = math.prod(map(len, sweep.axes.values()))
    if trials > MOST_VALUES:
        raise UsageError(f"the axes have {trials} trials; {too_many(MOST_VALUES)}")
    combinations = [
        dict(zip(sweep.axes, values, strict=True))
        for values in itertools.product(*sweep.axes.values())
    ]
    kept = [c for c in combinations if not any(_has(c, e) for e in sweep.exclude)]
    only = [measurement.only for measurement in sweep.evaluate]
    for word, named in [("exclude", e) for e in sweep.exclude] + [(ONLY, o) for o in only]:
        if not any(_has(combination, named) for combination in combinations):
            raise UsageError(f"{word} {dict(named)} names no trial; correct it or leave it out")
    if not kept:
        raise UsageError("every trial is excluded; nothing is left to run")
    return [
        Point(
            {axis: value.label for axis, value in combination.items()},
            _merged([sweep.set, *(value.options for value in combination.values())]),
            [m.options for m in sweep.evaluate if _has(combination, m.only)],
        )
        for combination in kept
    ]


def word(value: Any) -> str:
    """A value as a word in names and tables."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _axis(name: str, values: Any, where: str) -> list[Value]:
    if not isinstance(values, list) or not values:
        raise UsageError(f"{where} is {values!r}; it must be a list of at least one value")
    axis = [_value(name, value, where) for value in values]
    labels = [value.label for value in axis]
    for label, times in Counter(labels).items():
        if times > 1:
            raise UsageError(
                f"{where} has {label} twice; leave one out, or give mappings a {LABEL} each"
            )
    return axis


def _value(axis: str, value: Any, where: str) -> Value:
    if not isinstance(value, dict):
        if not _is_option(axis):
            raise UsageError(f"{where} {_no_option(axis)}; a label takes mappings of options")
        return Value(word(value), {axis: value}, value)
    options = {str(key): inner for key, inner in value.items() if key != LABEL}
    for key in options:
        _require_option(key, where)
    if not options:
        raise UsageError(f"{where}: {value!r} sets no option")
    label = ",".join(f"{key.rpartition('.')[2]}={word(inner)}" for key, inner in options.items())
    return Value(str(value.get(LABEL, label)), options)


def _seeds(seeds: Any, where: str) -> list[int]:
    if type(seeds) is int and seeds > MOST_VALUES:
        raise UsageError(f"{where}: seeds is {seeds}; {too_many(MOST_VALUES)}")
    if type(seeds) is int and seeds > 0:
        return list(range(1, seeds + 1))
    if isinstance(seeds, list) and seeds and all(type(seed) is int for seed in seeds):
        return seeds
    raise UsageError(f"{where}: seeds is {seeds!r}; it must be a number of them or a list")


Axes = Mapping[str, Sequence[Value]]


def _exclusions(content: Any, axes: Axes, where: str) -> list[Options]:
    entries: list[Options] = [_mapping(entry, where) for entry in _list(content, where)]
    for entry in entries:
        if not entry:
            raise UsageError(f"{where}: an empty entry names every trial; leave it out")
        _require_varied(entry, axes, where)
    return entries


def _require_varied(entry: Options, axes: Axes, where: str) -> None:
    known = {*axes, *(key for axis in axes.values() for value in axis for key in value.options)}
    for key in entry:
        if key not in known:
            near = did_you_mean(key, known) or f"; it varies {', '.join(sorted(known))}"
            raise UsageError(f"{where}: nothing varies {key}{near}")


def _has(combination: Mapping[str, Value], named: Options) -> bool:
    """Whether a combination has each named value, or for a list one of its values."""
    options = _merged([value.options for value in combination.values()])
    for key, wanted in named.items():
        found = combination[key].label if key in combination else None
        plain = combination[key].plain if key in combination else options.get(key)
        either = wanted if isinstance(wanted, list) and not isinstance(plain, list) else [wanted]
        if not any(word(one) == found or one == plain for one in either):
            return False
    return True


def _measurements(entry: Any, axes: Axes, where: str) -> Iterator[Measurement]:
    values = _mapping(entry, where)
    only = _mapping(values.pop(ONLY, None), f"{where}: {ONLY}")
    _require_varied(only, axes, f"{where}: {ONLY}")
    for key, value in values.items():
        if key in ("run", "help", "h", "print_config"):
            raise UsageError(f"{where}: {key} cannot be given")
        if value == []:
            raise UsageError(f"{where}: {key} is an empty list")
    lists = [value if isinstance(value, list) else [value] for value in values.values()]
    measured = math.prod(map(len, lists))
    if measured > MOST_VALUES:
        raise UsageError(f"{where} has {measured} measurements; {too_many(MOST_VALUES)}")
    for combination in itertools.product(*lists):
        yield Measurement(dict(zip(values, combination, strict=True)), only)


def _merged(layers: Sequence[Options]) -> dict[str, Any]:
    return {key: value for layer in layers for key, value in layer.items()}


def _is_option(key: str) -> bool:
    section, dot, option = key.partition(".")
    return key in (*ROLES, SEED, "init") or bool(section in SECTIONS and dot and option)


def _require_option(key: str, where: str) -> None:
    if not _is_option(key):
        raise UsageError(f"{where}: {key} {_no_option(key)}")


def _no_option(key: str) -> str:
    section, dot, _ = key.partition(".")
    known = SECTIONS if dot else (*ROLES, SEED)
    near = did_you_mean(section, known)
    return f"is no option{near or ' (such as process, train.steps or seed)'}"


def _require_known(content: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in content:
        if key not in known:
            near = did_you_mean(key, known) or f"; known: {', '.join(known)}"
            raise UsageError(f"{where}: unknown key {key!r}{near}")


def _mapping(content: Any, where: str) -> dict[str, Any]:
    if not isinstance(content, dict | None):
        raise UsageError(f"{where} is {content!r}; it must hold values by name")
    return {str(key): value for key, value in (content or {}).items()}


def _list(content: Any, where: str) -> list[Any]:
    if not isinstance(content, list | None):
        raise UsageError(f"{where} is {content!r}; it must be a list")
    return content or []


def _texts(content: Any) -> bool:
    return isinstance(content, list) and all(isinstance(text, str) for text in content)
