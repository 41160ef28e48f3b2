"""The tracker `aim`: a run in the Aim repository beside its directory."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from shlex import quote
from typing import Any, Self

from platform_aim.repository import (
    alive,
    date_end,
    import_aim,
    in_use,
    index,
    is_repository,
    open_repository,
    prepare_run,
)
from platform_core.record.directory import RunDirectory
from platform_core.record.tracker import About, Tracker, new_hash

INDEX_SECONDS = 2.0
"""Longest wait at the end of a run for another process that is indexing."""


class AimTracker(Tracker):
    """One run in an Aim repository.

    Queries see each section of the hyper-parameters at the top: `run.process.name == "duo"`,
    `run.train.learning_rate < 1e-2`, `run.sweep == "noise"`,
    `metric.context.subset == "validation"`.

    Args:
        repository: a directory called `.aim`; made if missing.
        about: what is known of the run when it begins.
        run_hash: of a run to go on with, or to make again where the repository has it no more.
        clock: seconds since 1970, by which the run and what it tracks are dated.
    """

    title = "Aim"

    def __init__(
        self,
        repository: Path,
        about: "About",
        *,
        run_hash: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._aim = import_aim()
        self._hash = run_hash or new_hash()
        with ExitStack() as started:
            started.enter_context(in_use(repository))
            self._repo = open_repository(repository)
            started.enter_context(alive(repository, self._hash))
            prepare_run(self._repo, self._hash, created=clock())
            self._run = self._aim.Run(
                self._hash,
                repo=self._repo,
                # The lock of a killed run stays where it was another machine's, or where its
                # process id is in use again. Ours above keeps two living writers apart.
                force_resume=True,
                log_system_params=False,
                capture_terminal_logs=False,
                system_tracking_interval=None,
            )
            self._describe(about)
            self._locks = started.pop_all()

    @classmethod
    def open(cls, directory: RunDirectory, about: About, identity: str | None) -> Self:
        """A run in the repository `.aim` beside the run directory."""
        return cls(directory.path.parent / ".aim", about, run_hash=identity)

    @classmethod
    def unusable(cls) -> str | None:
        """That Aim is missing, as it is from Python 3.13 on."""
        if find_spec("aim") is None:
            return "Aim is not installed (it needs Python below 3.13)"
        return None

    @classmethod
    def new_identity(cls) -> str:
        """Aim goes on with a run of any name, and so begins one."""
        return new_hash()

    @classmethod
    def prepare(cls, runs: Path) -> None:
        """Makes the repository, which fails in all but one of several processes at once."""
        repository = (runs / ".aim").absolute()
        if not is_repository(repository):
            open_repository(repository)

    @classmethod
    def viewer(cls, runs: Path) -> str:
        """The dashboard of this plugin."""
        at_home = runs == Path("runs")
        return "platform dashboard" if at_home else f"platform dashboard {quote(str(runs))}"

    @property
    def identity(self) -> str:
        """Aim's hash of the run."""
        return self._hash

    def log(
        self, metrics: Mapping[str, float], *, step: int, subset: str, level: str | None = None
    ) -> None:
        """Tracks numbers in the context of their subset, and of their part of the noise levels."""
        context = {"subset": subset} if level is None else {"subset": subset, "level": level}
        for name, value in metrics.items():
            self._track(float(value), name, step, context)

    def text(self, name: str, samples: Sequence[str], *, step: int) -> None:
        """Tracks all samples of a step as one list."""
        if samples:
            self._track([self._aim.Text(sample) for sample in samples], name, step)

    def figure(self, path: Path, *, step: int) -> None:
        """Tracks the plot as an image, and the bound by noise level also as curves.

        What a run ends with is of more sequences than the looks on the way, and so no point of
        their curves: its subset is `final`, as that of the final bound is.
        """
        from platform_core.evaluation import figures

        record = json.loads(path.read_text(encoding="utf-8"))
        self._track(self._aim.Image(str(figures.plotted(path))), record["kind"], step)
        subset = "final" if path.stem.endswith("-final") else record.get("subset")
        for level in record.get("levels", ()):
            where = f"{level['start']:.1f}-{level['end']:.1f}"
            bound = {"level_nats_per_token": level["nats_per_token"]}
            self.log(bound, step=step, subset=subset, level=where)

    def close(self) -> None:
        """Finishes the run and indexes it, so that queries and the web interface find it."""
        with self._locks:
            ended = self._clock()
            self._run.close()
            # Aim flushes the files and marks the run as finished when nothing refers to it.
            del self._run
            date_end(self._repo, self._hash, ended)
            # If the index is not free in time, whoever holds it is a dashboard and indexes this.
            index(self._repo, [self._hash], patience=INDEX_SECONDS)

    def _track(
        self, value: Any, name: str, step: int, context: Mapping[str, str] | None = None
    ) -> None:
        # `Run.track` without its own date, and without hiding what goes wrong.
        self._run._tracker._track(value, self._clock(), name, step, context=dict(context or {}))

    def _describe(self, about: "About") -> None:
        self._run.name = about.name
        self._run.experiment = about.sweep or about.parts["process"]
        for section, value in about.sections().items():
            self._run[section] = _plain(value)
        if about.sweep and about.sweep not in self._run.tags:
            self._run.add_tag(about.sweep)


def _plain(value: Any) -> Any:
    """What Aim can store: plain JSON, integers of 64 bits."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, bool | float | None) or (isinstance(value, int) and abs(value) < 2**63):
        return value
    return str(value)
