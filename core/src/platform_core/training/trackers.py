"""The trackers `tensorboard`, `wandb`, `mlflow` and `trackio`, built on those of `accelerate`.

    tensorboard   RUN/tensorboard            TensorBoard hides what a resumed run writes again
    wandb         RUN/wandb                  offline where there is no key; `wandb sync` sends it
    mlflow        RUNS/mlruns                or where MLFLOW_TRACKING_URI says
    trackio       RUNS/.trackio              or where TRACKIO_DIR says

RUN is the run directory and RUNS its parent. Metrics are called SUBSET/NAME. No tracker uses the
network unless its environment variable, or a key for W&B, asks for it. The libraries are imported
when a run begins.
"""

import contextlib
import io
import netrc
import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from shlex import quote
from typing import Any, ClassVar, Self, final

from platform_core.record.directory import BETWEEN_SAMPLES, RunDirectory
from platform_core.record.files import read_json, write_json
from platform_core.record.tracker import About, Tracker, new_hash

PROJECT = "dlm-platform"
"""The project of W&B runs, unless WANDB_PROJECT is set, and of Trackio runs outside sweeps."""

HEADLINE = "final/bits_per_character"
"""The number by which TensorBoard's table of hyper-parameters compares runs."""


class Accelerated(Tracker):
    """A tracker that `accelerate` can start, write numbers to and finish.

    Args:
        tracker: a tracker of `accelerate.tracking`.
        told: what earlier processes of the run have logged, which is not logged again; None to log
            everything.
    """

    package: ClassVar[str]
    """Name of the package that pip installs."""
    module: ClassVar[str]
    """Name of the module that the tracker imports."""

    def __init__(self, tracker: Any, told: "Told | None" = None) -> None:
        import torch
        from accelerate import PartialState

        # accelerate's trackers ask PartialState which process they are in.
        PartialState(cpu=not torch.cuda.is_available())
        self._tracker, self._told = tracker, told
        tracker.start()

    @classmethod
    def unusable(cls) -> str | None:
        if find_spec(cls.module) is None:
            return f"{cls.title} is not installed (pip install {cls.package})"
        return None

    def log(self, metrics: Mapping[str, float], *, step: int, subset: str) -> None:
        """Logs each number as SUBSET/NAME."""
        values = {f"{subset}/{name}": float(value) for name, value in metrics.items()}
        new = {name: values[name] for name in self._new(values, step)}
        if new:
            self._write(new, step)

    def text(self, name: str, samples: Sequence[str], *, step: int) -> None:
        """Logs all samples of a step as one entry."""
        if samples and self._new([name], step):
            self._write_text(name, samples, step)

    def figure(self, path: Path, *, step: int) -> None:
        """Logs the plot as an image, under the name of the figure's kind."""
        from platform_core.evaluation.figures import plotted

        kind = str(read_json(path)["kind"])
        if self._new([kind], step):
            self._write_image(kind, plotted(path), step)

    def close(self) -> None:
        self._tracker.finish()

    def _new(self, names: Iterable[str], step: int) -> list[str]:
        return list(names) if self._told is None else self._told.new(names, step)

    def _write(self, values: Mapping[str, float], step: int) -> None:
        self._tracker.log(values, step=step)

    @abstractmethod
    def _write_text(self, name: str, samples: Sequence[str], step: int) -> None: ...

    @abstractmethod
    def _write_image(self, name: str, plot: Path, step: int) -> None: ...


class Told:
    """What an append-only service has received, so that a resumed run logs nothing twice.

    Steps never decrease within a process, so the last step and the names logged at it suffice. If a
    run is resumed with other options, the service keeps the old numbers up to that step.

    Args:
        path: the file that holds step and names; made when something is logged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        known = read_json(path) if path.exists() else {}
        self._step: int = known.get("step", -1)
        self._names: set[str] = set(known.get("names", ()))

    def new(self, names: Iterable[str], step: int) -> list[str]:
        """The names that were not yet logged at a step; they count as logged from now on."""
        if step < self._step:
            return []
        before = self._names if step == self._step else set()
        new = [name for name in names if name not in before]
        if new:
            self._step, self._names = step, {*before, *new}
            write_json(self._path, {"step": step, "names": sorted(self._names)})
        return new


class Named(Accelerated):
    """A tracker of an append-only service that accepts any identity for a run.

    Args:
        tracker: a tracker of `accelerate.tracking`.
        told: what earlier processes of the run have logged.
        identity: the run's identity in the service.
    """

    def __init__(self, tracker: Any, told: "Told", identity: str) -> None:
        super().__init__(tracker, told)
        self._identity = identity

    @classmethod
    def new_identity(cls) -> str:
        return new_hash()

    @property
    def identity(self) -> str:
        """The identity that the tracker was opened with."""
        return self._identity


@final
class TensorBoard(Accelerated):
    """Event files of TensorBoard, in the run directory."""

    title, package, module = "TensorBoard", "tensorboard", "tensorboard"
    FOLDER = "tensorboard"

    @classmethod
    def open(cls, directory: RunDirectory, about: About, identity: str | None) -> Self:
        """Starts event files; if the run is resumed, old events after `about.step` are hidden."""
        from accelerate.tracking import TensorBoardTracker

        resumed = {} if identity is None else {"purge_step": about.step + 1}
        opened = cls(TensorBoardTracker(cls.FOLDER, directory.path, **resumed))
        if identity is None:
            opened._describe(about)
        return opened

    @classmethod
    def viewer(cls, runs: Path) -> str:
        """The command that shows all runs below a directory in TensorBoard."""
        return f"tensorboard --logdir {quote(str(runs))}"

    @property
    def identity(self) -> str:
        """The folder's name; if it is already saved when a run begins, the run is resumed."""
        return self.FOLDER

    def _describe(self, about: About) -> None:
        from torch.utils.tensorboard import summary

        # accelerate would write hyper-parameters to another folder, which looks like another run.
        written: Callable[..., Any] = summary.hparams
        for part in written(dict(flat(about.sections())), {HEADLINE: 0.0}):
            self._tracker.writer.file_writer.add_summary(part)

    def _write_text(self, name: str, samples: Sequence[str], step: int) -> None:
        # As a code block, because samples are not Markdown.
        coded = ["\n".join(f"    {line}" for line in sample.split("\n")) for sample in samples]
        self._tracker.writer.add_text(name, BETWEEN_SAMPLES.join(coded), step)
        self._tracker.writer.flush()

    def _write_image(self, name: str, plot: Path, step: int) -> None:
        from matplotlib.image import imread

        self._tracker.writer.add_image(name, imread(plot)[..., :3], step, dataformats="HWC")
        self._tracker.writer.flush()


@final
class WandB(Named):
    """A run of W&B: offline in the run directory unless there is a key."""

    title, package, module = "W&B", "wandb", "wandb"

    @classmethod
    def open(cls, directory: RunDirectory, about: About, identity: str | None) -> Self:
        """Starts or continues a run; W&B joins parts with one identity when they are sent."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb
        from accelerate.tracking import WandBTracker

        identity = identity or new_hash()
        tracker = WandBTracker(
            os.environ.get("WANDB_PROJECT", PROJECT),
            id=identity,
            name=about.name,
            group=about.sweep,
            resume="allow",
            dir=str(directory.path.absolute()),
            mode=os.environ.get("WANDB_MODE") or ("online" if has_key(os.environ) else "offline"),
            config=about.sections(),
            settings=wandb.Settings(
                silent=True, console="off", disable_git=True, disable_code=True
            ),
        )
        return cls(tracker, Told(told_path(directory, "wandb")), identity)

    def _write_text(self, name: str, samples: Sequence[str], step: int) -> None:
        import wandb

        table = wandb.Table(columns=["sample"], data=[[sample] for sample in samples])
        self._tracker.log({name: table}, step=step)

    def _write_image(self, name: str, plot: Path, step: int) -> None:
        import wandb

        self._tracker.log({name: wandb.Image(str(plot))}, step=step)


@final
class MLflow(Accelerated):
    """A run of MLflow: in files beside the run directory unless MLFLOW_TRACKING_URI says where."""

    title, package, module = "MLflow", "mlflow-skinny", "mlflow"

    @classmethod
    def open(cls, directory: RunDirectory, about: About, identity: str | None) -> Self:
        """Opens a run in the experiment named after the sweep, else after the process."""
        from accelerate.tracking import MLflowTracker

        mlflow = cls._connected(directory.path.parent)
        experiment = about.sweep or about.parts["process"]
        tracker = MLflowTracker(experiment, run_id=identity, run_name=about.name)
        opened = cls(tracker, Told(told_path(directory, "mlflow")))
        if identity is None:
            # Only for a new run, because MLflow refuses to change values.
            options = {name: _unbroken(value) for name, value in flat(about.sections())}
            tracker.store_init_configuration(options)
            mlflow.set_tag("platform.directory", str(directory.path.absolute()))
        return opened

    @classmethod
    def prepare(cls, runs: Path) -> None:
        """Makes a sweep's experiment beforehand, because two processes at once would make two."""
        mlflow = cls._connected(runs)
        mlflow.set_experiment(runs.absolute().parent.name)

    @classmethod
    def viewer(cls, runs: Path) -> str:
        """The command that serves the files in MLflow's interface."""
        store = quote(str(runs / "mlruns"))
        return f"MLFLOW_ALLOW_FILE_STORE=true mlflow ui --backend-store-uri {store}"

    @property
    def identity(self) -> str:
        """The id of the run in MLflow."""
        return str(self._tracker.active_run.info.run_id)

    def close(self) -> None:
        """Marks this run as finished, even if another run is active in this thread."""
        import mlflow

        self._tracker.finish()
        mlflow.MlflowClient().set_terminated(self.identity)

    @classmethod
    def _connected(cls, runs: Path) -> Any:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        # MLflow asks for a database, which mlflow-skinny cannot open.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        import mlflow

        if "MLFLOW_TRACKING_URI" not in os.environ:
            mlflow.set_tracking_uri((runs / "mlruns").absolute().as_uri())
        return mlflow

    # The methods below name the run by its id, because MLflow has an active run for each thread.

    def _write(self, values: Mapping[str, float], step: int) -> None:
        self._tracker.log(values, step=step, run_id=self.identity)

    def _write_text(self, name: str, samples: Sequence[str], step: int) -> None:
        import mlflow

        text = BETWEEN_SAMPLES.join(samples) + "\n"
        mlflow.log_text(text, f"{name}/step-{step:07d}.txt", run_id=self.identity)

    def _write_image(self, name: str, plot: Path, step: int) -> None:
        import mlflow

        mlflow.log_artifact(str(plot), f"{name}/step-{step:07d}", run_id=self.identity)


@final
class Trackio(Named):
    """A run of Trackio, in a database beside the run directory."""

    title, package, module = "Trackio", "trackio", "trackio"

    @classmethod
    def open(cls, directory: RunDirectory, about: About, identity: str | None) -> Self:
        """Opens a run in the project named after the sweep, else in `PROJECT`."""
        os.environ.setdefault("TRACKIO_DIR", str((directory.path.parent / ".trackio").absolute()))
        from accelerate.tracking import TrackioTracker

        identity = identity or new_hash()
        tracker = TrackioTracker(
            about.sweep or PROJECT,
            # Trackio resumes runs by name, and a run in another directory may have the same name.
            name=f"{about.name}-{identity[:8]}",
            resume="allow",
            config=dict(flat(about.sections())),
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        with _quietly():
            return cls(tracker, Told(told_path(directory, "trackio")), identity)

    @classmethod
    def viewer(cls, runs: Path) -> str:
        """The command that shows the database in Trackio's dashboard."""
        return f"TRACKIO_DIR={quote(str(runs / '.trackio'))} trackio show"

    def close(self) -> None:
        """Finishes the run, without Trackio's output."""
        with _quietly():
            super().close()

    def _write_text(self, name: str, samples: Sequence[str], step: int) -> None:
        import trackio

        # Fences of four backticks, because a sample may contain three.
        coded = [f"````\n{sample}\n````" for sample in samples]
        self._tracker.log({name: trackio.Markdown(BETWEEN_SAMPLES.join(coded))}, step=step)

    def _write_image(self, name: str, plot: Path, step: int) -> None:
        import trackio

        self._tracker.log({name: trackio.Image(plot)}, step=step)


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Flattens options to pairs of key (train.steps) and value: a number, a boolean or text."""
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from flat(value, f"{key}.")
        else:
            yield key, value if isinstance(value, bool | int | float | str) else str(value)


def has_key(environ: Mapping[str, str], home: Callable[[], Path] = Path.home) -> bool:
    """Whether W&B would find an API key, in the environment or where `wandb login` puts it."""
    if environ.get("WANDB_API_KEY"):
        return True
    file = Path(environ.get("NETRC") or home() / ".netrc")
    host = environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1].split("/")[0]
    try:
        return netrc.netrc(file).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def told_path(directory: RunDirectory, name: str) -> Path:
    """The file in which a run keeps what a tracker has received (`Told`)."""
    return directory.path / "tracked" / f"{name}.json"


def _unbroken(value: Any) -> Any:
    """Replaces line breaks, because a value in MLflow's files is one line."""
    return value.replace("\n", " ") if isinstance(value, str) else value


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Suppresses the lines that Trackio prints, none of which ask the user anything."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
