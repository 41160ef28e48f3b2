"""The trials of a sweep's file, each composed and checked before any starts.

Every point goes through the `compose` of `platform run`: names, types, compatibility, and the parts
on torch's meta device. All mistakes are shown at once.
"""

import contextlib
import hashlib
import io
import json
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from platform_core.component import ROLES
from platform_core.composition.sources import SEED
from platform_core.composition.tracking import choose_trackers
from platform_core.errors import SeveralMistakesError, UsageError
from platform_core.record.files import digest, write_bytes, write_json, write_text
from platform_core.record.sweep import FORMAT, State, SweepDirectory
from platform_core.registry.parts import Plugins
from platform_sweep.file import Options, SweepFile, expand

if TYPE_CHECKING:
    from platform_core.composition.compose import Composition, Parsers

LONGEST_NAME = 120
SHOWN = 3
"""Number of trials that are named with each mistake."""


@dataclass(frozen=True)
class Trial:
    """One run of a sweep.

    Args:
        name: unique name, fit for a file name.
        labels: label of the trial's value on each axis.
        options: options that the trial sets.
        config: the run's complete `config.yaml`.
        evaluate: options of the measurements after the run.
        trackers: names of the trackers that show the run.
    """

    name: str
    labels: Mapping[str, str]
    options: Options
    config: str = field(repr=False)
    evaluate: Sequence[Options] = ()
    trackers: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Digest of the config; trials with equal digests are the same run."""
        return hashlib.sha256(self.config.encode()).hexdigest()


@dataclass(frozen=True)
class Plan:
    """The checked trials of a sweep."""

    file: SweepFile
    trials: Sequence[Trial]
    notes: Sequence[str] = ()

    def named(self, known: Mapping[str, str]) -> "Plan":
        """The same plan, in which trials of an earlier call keep their names.

        Args:
            known: names of trials by digest.
        """
        taken = {known[trial.digest] for trial in self.trials if trial.digest in known}
        trials = []
        for trial in self.trials:
            name = known.get(trial.digest) or _unique(trial.name, taken, trial.digest)
            taken.add(name)
            trials.append(replace(trial, name=name))
        return replace(self, trials=trials)


def make_plan(sweep: SweepFile, plugins: Plugins) -> Plan:
    """Compose and check every trial of a sweep and every measurement.

    Raises:
        UsageError: a trial or measurement cannot run; the message holds all reasons.
    """
    points = expand(sweep)
    composer, mistakes, notes = _Composer(sweep, plugins), _Mistakes(len(points)), _Notes()
    trials: dict[str, Trial] = {}
    alike: dict[tuple[str, str], list[Trial]] = {}
    for point in points:
        name = trial_name(point.labels)
        with mistakes.of(name), notes.caught():
            composition = composer.compose(point.options)
            chosen = choose_trackers(composition.track.to, plugins)
            if chosen.note():
                notes.add(chosen.note())
            trial = Trial(
                name,
                point.labels,
                point.options,
                composition.config,
                point.evaluate,
                tuple(chosen.kinds),
            )
            if trial.digest in trials:
                notes.add(f"{name} is the same run as {trials[trial.digest].name}, made once")
            else:
                trials[trial.digest] = trial
                key = _measured(composition.config), json.dumps(trial.evaluate)
                alike.setdefault(key, []).append(trial)
    for group in alike.values():
        for options in group[0].evaluate:
            with mistakes.of(*(trial.name for trial in group)), notes.caught():
                check_measurement(group[0].config, options, plugins)
    mistakes.raise_any()
    return Plan(sweep, list(trials.values()), notes.lines).named({})


def trial_name(labels: Mapping[str, str]) -> str:
    """Axes and labels as one file name."""
    plain = ",".join(f"{axis}={label}" for axis, label in labels.items())
    name = re.sub(r"[^A-Za-z0-9._=,+-]+", "-", plain)
    if name == plain and len(name) <= LONGEST_NAME:
        return name
    return f"{name[:LONGEST_NAME]}-{_short(plain)}"


def measurement_words(options: Options) -> list[str]:
    """A measurement's options as words after `platform eval RUN`."""
    from platform_core.composition.parser import written

    words = []
    for key, value in options.items():
        own = "." not in key and key not in ROLES
        if own and isinstance(value, bool):
            words += [f"--{key}"] if value else []
        else:
            words.append(f"--{key}={'null' if value is None else written(value)}")
    return words


def check_measurement(config: str, options: Options, plugins: Plugins) -> None:
    """Check that `platform eval` takes these options for a run with that config.

    Raises:
        UsageError: `platform eval` refuses the options.
    """
    from platform_core.cli import eval as verb

    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "config.yaml"
        saved.write_text(config, encoding="utf-8")
        words = [folder, *measurement_words(options)]
        try:
            verb.requested(saved, words, plugins, verb.installed_evaluations(plugins), {})
        except UsageError as error:
            said = str(error).replace(str(saved), "the trial")
            raise UsageError(f"evaluate {dict(options)}: {said}") from error


class _Composer:
    """Composer of many points; points that differ only in the seed are composed once."""

    def __init__(self, sweep: SweepFile, plugins: Plugins) -> None:
        self.configs = [f"--config={file}" for file in sweep.base]
        self.plugins = plugins
        self._parsers: Parsers = {}
        self._known: dict[str, Composition | UsageError] = {}

    def compose(self, options: Options) -> "Composition":
        """Compose a point as `platform run` would.

        Raises:
            UsageError: as `compose.compose`; or the point needs a run to start from.
        """
        seed = options.get(SEED)
        if type(seed) is not int:
            return self._compose(options)
        others = {key: value for key, value in options.items() if key != SEED}
        key = json.dumps(others, default=str)
        if key not in self._known:
            try:
                self._known[key] = self._compose(options)
            except UsageError as error:
                self._known[key] = error
        known = self._known[key]
        if isinstance(known, UsageError):
            raise known
        return known.with_seed(seed)

    def _compose(self, options: Options) -> "Composition":
        from platform_core.composition.compose import compose, require_start
        from platform_core.composition.parser import written

        # Names of parts come first, because an option belongs to the part that is chosen.
        ordered = sorted(options.items(), key=lambda option: option[0] not in ROLES)
        words = [f"--{key}={written(value)}" for key, value in ordered]
        composition, _ = compose(
            [*self.configs, *words], self.plugins, prog="platform run", parsers=self._parsers
        )
        require_start(composition)
        return composition


def _measured(config: str) -> str:
    """The parts of a config on which a measurement's check depends: all but seed and training."""
    import yaml

    sections = yaml.load(config, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    kept = {key: value for key, value in sections.items() if key not in ("seed", "train")}
    return json.dumps(kept, sort_keys=True)


class _Mistakes:
    """Messages of mistakes, each with the trials that it concerns."""

    def __init__(self, trials: int) -> None:
        self.trials = trials
        self.by_message: dict[str, list[str]] = {}

    @contextmanager
    def of(self, *names: str) -> Iterator[None]:
        try:
            yield
        except UsageError as error:
            self.by_message.setdefault(str(error), []).extend(names)

    def raise_any(self) -> None:
        if not self.by_message:
            return
        wrong = {name for names in self.by_message.values() for name in names}
        lines = [
            f"\n  {message}\n    {self._where(names)}" for message, names in self.by_message.items()
        ]
        raise SeveralMistakesError(
            f"{len(wrong)} of {self.trials} trials cannot run, so nothing was started:"
            f"{''.join(lines)}"
        )

    def _where(self, names: Sequence[str]) -> str:
        if len(names) == self.trials > 1:
            return f"all {self.trials} trials"
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        return f"{' '.join(names[:SHOWN])}{more}"


class _Notes:
    """Notes of composition, each once."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, line: str) -> None:
        if line not in self.lines:
            self.lines.append(line)

    @contextmanager
    def caught(self) -> Iterator[None]:
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            yield
        for line in said.getvalue().splitlines():
            self.add(line.removeprefix("note: "))


def _unique(name: str, taken: set[str], digest: str) -> str:
    """The name; or a longer one if a file system could confuse the name with one in `taken`."""
    lower = {other.lower() for other in taken}
    return f"{name}-{digest[:8]}" if name.lower() in lower else name


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def refuse_changed(directory: SweepDirectory, plan: Plan) -> None:
    """Refuse a plan whose trials have the names of earlier runs with other configs.

    Raises:
        UsageError: the directory has runs that were made from other configs.
    """
    changed = [
        trial.name
        for trial in plan.trials
        if directory.run(trial.name).config.is_file()
        and digest(directory.run(trial.name).config) != trial.digest
    ]
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise UsageError(
            f"{directory.trials / changed[0]}{more} was made with other options; give another "
            "--output, or remove what is to be made anew"
        )


def write_plan(directory: SweepDirectory, plan: Plan, content: bytes) -> None:
    """Write the plan into the sweep's directory; states of existing trials stay as they are."""
    directory.trials.mkdir(parents=True, exist_ok=True)
    for trial in plan.trials:
        write_text(directory.config(trial.name), trial.config)
        if not directory.state_file(trial.name).exists():
            directory.set_state(trial.name, State())
    write_json(
        directory.index,
        {
            "format": FORMAT,
            "axes": {
                axis: [value.label for value in values] for axis, values in plan.file.axes.items()
            },
            "evaluate": [dict(measurement.options) for measurement in plan.file.evaluate],
            "trials": [
                {
                    "name": trial.name,
                    "run": f"trials/{trial.name}",
                    "labels": dict(trial.labels),
                    "options": dict(trial.options),
                    "evaluate": [dict(options) for options in trial.evaluate],
                    "digest": trial.digest,
                }
                for trial in plan.trials
            ],
        },
    )
    write_bytes(directory.file, content)
