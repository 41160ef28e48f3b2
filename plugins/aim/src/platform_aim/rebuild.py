"""The Aim repository of a directory of runs, made anew from the run directories alone.

    config.yaml, metrics.jsonl, samples/, figures/, tracking.json  ->  .aim

A run keeps its name in Aim (`tracking.json`), and so do links to it; so do bookmarks. The new
repository is made beside the old one and takes its place when it is whole. Used by `platform
dashboard --rebuild`.
"""

import json
import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from platform_aim.repository import BOOKMARKS, hashes, in_use
from platform_aim.tracker import AimTracker
from platform_core.errors import UsageError
from platform_core.record import metrics
from platform_core.record.directory import BETWEEN_SAMPLES, RunDirectory
from platform_core.record.files import WriteError, scratch_folder
from platform_core.record.metrics import LABELS
from platform_core.record.tracker import (
    about,
    identities,
    keep_identities,
    new_hash,
    when_began,
)

DAMAGE = (UsageError, ValueError, KeyError, TypeError)
"""What reading a damaged run directory raises."""


@dataclass
class Rebuilt:
    """What became of the runs of a directory."""

    runs: list[Path] = field(default_factory=list)
    """Those that the new repository has."""
    damaged: dict[Path, str] = field(default_factory=dict)
    """Those that it has not, or not whole, and why."""
    kept: Path | None = None
    """The old repository, if it has runs that the new one lacks."""


def rebuild(runs: Path) -> Rebuilt:
    """Makes `runs/.aim` anew from the run directories in `runs`.

    Raises:
        UsageError: there are no runs, or some process uses the repository.
    """
    directories = list(run_directories(runs))
    if not directories:
        raise UsageError(f"{runs} has no run directories with a metrics.jsonl; name their parent")
    try:
        with in_use(runs / ".aim", alone=True):
            return _replace(directories, runs)
    except BlockingIOError as error:
        raise UsageError(
            f"{runs / '.aim'} is in use by a run or a dashboard; wait for it to end, or stop it"
        ) from error


def run_directories(runs: Path) -> Iterator[RunDirectory]:
    """Those with a record, in the order of their names."""
    for path in sorted(runs.iterdir()) if runs.is_dir() else ():
        directory = RunDirectory(path)
        if directory.config.is_file() and directory.metrics.is_file():
            yield directory


def complete(runs: Path, killed: Collection[str]) -> None:
    """Tracks killed runs again, by their names in Aim, as far as they have directories in `runs`.

    Aim writes a number, its step and its time one after another: killed in between, it shows the
    whole curve in a wrong order. metrics.jsonl has that number already.
    """
    if not killed:
        return
    for directory in run_directories(runs):
        if identities(directory).get("aim") in killed:
            # A run that is damaged, or resumed just now, is left as it is.
            with suppress(*DAMAGE, BlockingIOError):
                _track(directory, runs / ".aim")


def _replace(directories: list[RunDirectory], runs: Path) -> Rebuilt:
    old, before = runs / ".aim", runs / ".aim-before"
    # Aim wants its repositories to be called so.
    with scratch_folder(runs / ".aim-new") as folder:
        new = folder / ".aim"
        rebuilt, tracked = Rebuilt(), set()
        for directory in directories:
            try:
                tracked.add(_track(directory, new))
            except WriteError:
                raise  # no damage of this run: the old repository stays
            except DAMAGE as error:
                rebuilt.damaged[directory.path] = f"{type(error).__name__}: {error}"
            else:
                rebuilt.runs.append(directory.path)
        if (old / BOOKMARKS).exists():
            shutil.copyfile(old / BOOKMARKS, new / BOOKMARKS)
        missing = hashes(old) - tracked
        shutil.rmtree(before, ignore_errors=True)
        old.rename(before)
        new.rename(old)
    if missing:
        rebuilt.kept = before
    else:
        shutil.rmtree(before)
    return rebuilt


def _track(directory: RunDirectory, repository: Path) -> str:
    """Tracks again what a run has tracked; returns its name in Aim."""
    records = metrics.read(directory.metrics)
    run_hash = identities(directory).get("aim") or new_hash()
    began = when_began(directory) or directory.config.stat().st_mtime
    keep_identities(directory, {"aim": run_hash}, began=began)
    now = began

    def clock() -> float:
        return now

    said = about(directory, _versions(directory))
    tracker = AimTracker(repository, said, run_hash=run_hash, clock=clock)
    try:
        times: dict[int, float] = {}
        for record in records:
            now = times[record["step"]] = began + record["time"]
            numbers = {name: record[name] for name in record if name not in LABELS}
            tracker.log(numbers, step=record["step"], subset=record["subset"])
        last = max(times, default=0)
        for path in sorted(directory.samples.glob("*.txt")):
            step = _step(path, last)
            now = times.get(step, now)
            texts = path.read_text(encoding="utf-8").removesuffix("\n").split(BETWEEN_SAMPLES)
            tracker.text("samples", texts, step=step)
        for path in sorted(directory.figures.glob("*.json")):
            step = _step(path, last)
            now = times.get(step, now)
            tracker.figure(path, step=step)
        now = max(times.values(), default=began)
    finally:
        tracker.close()
    return run_hash


def _step(path: Path, last: int) -> int:
    """The step of a file's look; the end of a run is its last."""
    found = re.search(r"step-(\d+)$", path.stem)
    return int(found[1]) if found else last


def _versions(directory: RunDirectory) -> dict[str, Any]:
    if not directory.environment.exists():
        return {}
    return dict(json.loads(directory.environment.read_text())["packages"])
