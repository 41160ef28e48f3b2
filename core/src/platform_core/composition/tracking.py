"""Which trackers show a run: what `--track.to` asks for, as far as it can be used here.

    aim,tensorboard -> both        none -> none        auto -> the first of PREFERRED that works

Decided when a run or a sweep starts and not kept: config.yaml says `auto` where that was asked for,
so that the same config runs where other packages are installed. Used by `platform run` and by
sweeps.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from platform_core.errors import UsageError
from platform_core.record.tracker import Tracker
from platform_core.registry.parts import FIRST_PARTY, Plugins

AUTO, NONE = "auto", "none"
PREFERRED = ("aim", "tensorboard")
"""What auto takes the first usable one of."""


@dataclass(frozen=True)
class Chosen:
    """Trackers that can be used here."""

    kinds: Mapping[str, type[Tracker]] = field(default_factory=dict)
    """Name -> class, in the order in which they were asked for."""
    why: str = ""
    """Why auto did not take its first choice."""

    def note(self, runs: Path | None = None) -> str:
        """What there is to say of a choice that is not the usual one, in one line; or nothing.

        Args:
            runs: the directory that the run is in, for how to look at it.
        """
        if not self.why:
            return ""
        taken = " and ".join(kind.title for kind in self.kinds.values()) or "no tracker"
        looks = [kind.viewer(runs) for kind in self.kinds.values()] if runs else []
        look = f"; look with: {looks[0]}" if looks and looks[0] else ""
        return f"runs are shown by {taken}, because {self.why}{look}"


def choose_trackers(to: str, plugins: Plugins, known: Collection[str] = ()) -> Chosen:
    """The trackers that an option `track.to` names.

    Args:
        to: names separated by commas, none or auto.
        plugins: where trackers come from.
        known: those that show a run which is resumed. It goes on with those of them that can still
            be used.

    Raises:
        UsageError: a name is unknown, or what was named cannot be used here.
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
    """Why auto cannot take a tracker; None where it can."""
    if name not in plugins.names("tracker"):
        plugin = FIRST_PARTY["tracker"].get(name, "core")
        return f"plugin {plugin}, which brings {name}, is not there: {plugins.absence(plugin)}"
    return _kind(name, plugins).unusable()


def _kind(name: str, plugins: Plugins) -> type[Tracker]:
    kind: type[Tracker] = plugins.load("tracker", name)
    return kind
