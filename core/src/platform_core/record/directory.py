"""A run directory: the whole record of a run, and the paths of its files."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

from platform_core.errors import UsageError
from platform_core.record.files import ReadError, read_json, remove
from platform_core.record.locks import BusyError, claimed

BETWEEN_SAMPLES = "\n\n---\n\n"
"""Separator of the texts in a file in samples/."""

LOCK = ".lock"
"""The file in a run directory that whoever writes the run holds; it goes when they end."""


class RunDirectory:
    """The files of one run; see ARCHITECTURE.md for what each holds."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.environment = path / "environment.json"
        self.tokenizer = path / "tokenizer.json"
        self.labels = path / "labels.json"
        self.metrics = path / "metrics.jsonl"
        self.tracking = path / "tracking.json"
        self.result = path / "result.json"
        self.init = path / "init.json"
        self.samples = path / "samples"
        self.figures = path / "figures"
        self.checkpoints = path / "checkpoints"
        self.evaluations = path / "evaluations"
        self.history = path / "history"
        self.profile = path / "profile"

    @classmethod
    def existing(cls, path: str | Path) -> "RunDirectory":
        """The directory of a run that was started.

        Raises:
            UsageError: the directory holds no run.
        """
        run = cls(Path(path))
        if not run.config.is_file():
            here = (
                "is no run directory (it has no config.yaml)"
                if run.path.exists()
                else "does not exist"
            )
            trials = sorted(path.parent.name for path in run.path.glob("trials/*/config.yaml"))
            if (run.path / "trials.json").is_file() or (run.path / "sweep.yaml").is_file():
                raise UsageError(f"{run.path} is the directory of a sweep; {_names(run, trials)}")
            raise UsageError(f"{run.path} {here}; `platform run --output DIR` makes one")
        return run

    @classmethod
    @contextmanager
    def new(
        cls, output: str | Path | None, *, default: str, overwrite: bool
    ) -> Iterator["RunDirectory"]:
        """A directory for a run to begin in, held for the time of the block.

        Args:
            output: where; else a new one under runs/, named after the parts and the time.
            default: the parts.
            overwrite: whether an earlier run there may go.

        Raises:
            UsageError: as `held` and `refuse_existing`.
        """
        if output is not None:
            run = cls(Path(output))
            run.refuse_existing(overwrite=overwrite)
            with run.held():
                # Another may have begun and ended since.
                run.refuse_existing(overwrite=overwrite)
                yield run
            return
        name = f"{default}-{time.strftime('%Y%m%d-%H%M%S')}"
        for number in count(1):
            run = cls(Path("runs") / (name if number == 1 else f"{name}-{number}"))
            with ExitStack() as stack:
                # Of runs that begin in the same second only one has a name.
                if run.path.exists():
                    continue
                try:
                    stack.enter_context(run.held())
                except BusyError:
                    continue
                if run._is_unbegun():
                    yield run
                    return

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keeps out other processes that would write the run, for the time of the block.

        A directory that is made for it and still empty at the end goes again.

        Raises:
            UsageError: another process trains or writes it.
            WriteError: it cannot be written.
        """
        busy = (
            f"{self.path} is being written by another process (a run, or an import); "
            "wait until it has ended, or give another --output"
        )
        with claimed(self.path / LOCK, busy=busy):
            yield

    @property
    def sweep(self) -> str | None:
        """The name SWEEP of the sweep, if this run is its trial `SWEEP/trials/NAME`; else None."""
        trials = self.path.absolute().parent
        made = trials.name == "trials" and (trials.parent / "trials.json").is_file()
        return trials.parent.name if made else None

    def steps(self) -> list[int]:
        """The steps of its checkpoints, in order."""
        names = [path.name[5:] for path in self.checkpoints.glob("step-*")]
        return sorted(int(name) for name in names if name.isdecimal())

    def refuse_existing(self, *, overwrite: bool) -> None:
        """Refuses a path at which a new run would replace files that have to stay.

        Raises:
            UsageError: a run exists there and `overwrite` is False, or something else exists there.
        """
        if self.path.is_dir() and self._is_unbegun():
            return
        if not self.path.exists():
            return
        if not overwrite:
            raise UsageError(
                f"{self.path} exists; give another --output, --resume {self.path} to continue it, "
                "or --overwrite to start anew"
            )
        if not self.config.is_file() and not self._is_unfinished():
            raise UsageError(f"{self.path} is no run directory, so --overwrite leaves it alone")

    def _is_unbegun(self) -> bool:
        """Whether nothing is there but what a start that was killed has left: no record yet."""
        files = {self.tokenizer, self.labels, self.init, self.environment, self.path / LOCK}
        there = set(self.path.iterdir())
        # A start makes the lock and then the folder of samples; a tokenizer alone is somebody's.
        return not there or (
            bool(there & {self.samples, self.path / LOCK})
            and all(path in files or _is_partial(path) for path in there - {self.samples})
            and not (self.samples.exists() and any(self.samples.iterdir()))
        )

    def _is_unfinished(self) -> bool:
        """Whether it is a run directory that was being replaced when its process was killed."""
        others = ("import.json", "tensorboard", "wandb", "tracked")
        own = {path for path in vars(self).values() if isinstance(path, Path)}
        own |= {self.path / name for name in others}
        there = list(self.path.iterdir()) if self.path.is_dir() else []
        return self.path / LOCK in there and all(
            path in own or path.name == LOCK or _is_partial(path) for path in there
        )

    def label_names(self) -> tuple[str, ...]:
        """The names of the labels that the network reads, in their order; none if it reads none."""
        if not self.labels.exists():
            return ()
        names = read_json(self.labels).get("names")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ReadError(f"{self.labels} is damaged: it has no list of names")
        return tuple(names)

    def create(self) -> None:
        """Makes the directory, in place of an earlier run's; for who holds it."""
        # First what makes it a run, so that nothing takes a half removed one for a whole one.
        self.config.unlink(missing_ok=True)
        for path in self.path.iterdir() if self.path.exists() else ():
            if path.name != LOCK:
                remove(path)
        self.samples.mkdir(parents=True)


def _is_partial(path: Path) -> bool:
    return path.name.startswith(".") and path.name.endswith(".partial")


def first_argument(argv: Sequence[str], usage: str) -> RunDirectory:
    """The run directory that a command line names first.

    Raises:
        UsageError: the first word is no directory, or the directory holds no run.
    """
    if not argv or argv[0].startswith("-"):
        raise UsageError(f"name the run directory first: {usage}; {usage} --help lists the options")
    return RunDirectory.existing(argv[0])


def _names(sweep: RunDirectory, trials: Sequence[str]) -> str:
    """What to give instead of the directory of a sweep: one of its trials."""
    if not trials:
        return "none of its trials has begun, so it has no run yet"
    more = f", and {len(trials) - 5} more" if len(trials) > 5 else ""
    return f"give one of its runs, {sweep.path / 'trials'}/NAME: {', '.join(trials[:5])}{more}"
