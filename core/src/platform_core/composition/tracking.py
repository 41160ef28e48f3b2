"""The choice of a run's trackers: those of `--track.to` that can be used on this machine.

    aim,tensorboard -> both        none -> none        auto -> the first of PREFERRED that works

The choice is made when a run or a sweep starts, and is not saved: config.yaml says `auto` if that
was asked for, so that the same config runs where other packages are installed. Used by `platform
run` and by sweeps.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from platform_core.errors import UsageError
from platform_core.record.tracker import Tracker
from platform_core.registry.parts import FIRST_PARTY, Plugins

AUTO, NONE = "auto", "none"
PREFERRED = ("aim", "tensorboard")
"""Trackers that `auto` tries in this order; the first usable one is chosen."""


@dataclass(frozen=True)
class Chosen:
    """The chosen trackers, all usable on this machine."""

    kinds: Mapping[str, type[Tracker]] = field(default_factory=dict)
    """Name -> class, in the order in which they were asked for."""
    why: str = ""
    """Why a preferred or named tracker was left out; empty if none was."""

    def note(self, runs: Path | None = None) -> str:
        """One line on a choice that left out a tracker; empty if none was left out.

        Args:
            runs: the parent of the run directory, to name the command that shows the run.
        """
        if not self.why:
            return ""
        taken = " and ".join(kind.title for kind in self.kinds.values()) or "no tracker"
        looks = [kind.viewer(runs) for kind in self.kinds.values()] if runs else []
        look = f"; look with: {looks[0]}" if looks and looks[0] else ""
        return f"runs are shown by {taken}, because {self.why}{look}"


def choose_trackers(to: str, plugins: Plugins, known: Collection[str] = ()) -> Chosen:
    """Chooses the trackers that an option `track.to` names.

    Args:
        to: names separated by commas, none or auto.
        plugins: the installed plugins, which provide the trackers.
        known: trackers of a run that is resumed; the run continues with those that can still be
            used.

    Raises:
        UsageError: a name is unknown, or a named tracker cannot be used on this machine.
    """
    names = [name.strip() for name in to.split(",")]
    if names == [AUTO]:
        return _automatic(plugins, known)
    if names == [NONE]:
        return Chosen()
    alone = next((name for name in names if name in (AUTO, NONE, "")), None)
    if alone is not None:
        raise UsageError(
            f"track.to is {to!r}; it must be {AUTO}, {NONE}, or names of trackers with commas "
            f"between them: {', '.join(plugins.names('tracker'))}"
        )
    lost = {name: why for name in names if name in known and (why := _missing(name, plugins))}
    kinds = {name: _kind(name, plugins) for name in names if name not in lost}
    for name, kind in kinds.items():
        missing = kind.unusable()
        if missing:
            raise UsageError(f"track.to names {name}, which cannot be used here: {missing}")
    return Chosen(kinds, "; and ".join(lost.values()))


def _automatic(plugins: Plugins, known: Collection[str]) -> Chosen:
    there = {name: _kind(name, plugins) for name in known if name in plugins.names("tracker")}
    before = {name: kind for name, kind in there.items() if kind.unusable() is None}
    if before:
        return Chosen(before)
    reasons: list[str] = []
    for name in PREFERRED:
        missing = _missing(name, plugins)
        if missing is None:
            return Chosen({name: _kind(name, plugins)}, "; and ".join(reasons))
        reasons.append(missing)
    return Chosen(why="; and ".join(reasons))


def _missing(name: str, plugins: Plugins) -> str | None:
    """Why a tracker cannot be used on this machine; None if it can."""
    if name not in plugins.names("tracker"):
        plugin = FIRST_PARTY["tracker"].get(name, "core")
        return f"plugin {plugin}, which brings {name}, is not there: {plugins.absence(plugin)}"
    return _kind(name, plugins).unusable()


def _kind(name: str, plugins: Plugins) -> type[Tracker]:
    kind: type[Tracker] = plugins.load("tracker", name)
    return kind
