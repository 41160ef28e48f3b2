"""Trials as jobs of a SLURM cluster, one job array for each call, through submitit.

    submit -> job: Attempt of the trial -> (preempted, or out of time: saved and queued again)

The nodes must see the sweep's directory. Its folder `slurm/` holds submitit's files, the output of
the jobs, and `jobs.json`: the job of each trial, so that another call watches jobs that are queued
or running and submits only the other trials.
"""

import getpass
import json
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, final

from platform_core.errors import UsageError
from platform_core.record.files import write_json
from platform_core.record.sweep import SweepDirectory
from platform_core.runtime.signals import blocked, handled
from platform_sweep.attempt import Attempt, Task
from platform_sweep.file import SlurmOptions
from platform_sweep.launcher import Launcher, Setting

if TYPE_CHECKING:
    from submitit import AutoExecutor
    from submitit.helpers import DelayedSubmission

LOOK_SECONDS = 0.2
SAVING_SECONDS = 600.0
"""Longest wait in seconds for a run that saves itself; SLURM kills it earlier."""


class TrialJob:
    """A job, which runs one trial from its present state to its end.

    submitit pickles the job, calls it on a node, and calls `checkpoint` when the job's time is
    nearly up (SIGUSR2). On preemption SLURM sends SIGTERM to all processes and starts the job anew
    later.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self._attempt: Attempt | None = None
        self._leaving = False

    def __call__(self) -> str:
        """Run the trial to its end, and return its status."""
        retries = self.task.retries
        with handled(signal.SIGTERM, by=self._leave):
            while not self.task.done():
                self._attempt = self._begin()
                self._wait(self._attempt)
                if not (retries and self._attempt.worth_repeating):
                    break
                retries -= 1
        return self.task.directory.state(self.task.name).status

    def checkpoint(self) -> "DelayedSubmission":
        """Let the run save itself; the job that submitit then queues continues the run."""
        from submitit.helpers import DelayedSubmission

        if self._attempt is not None:
            self._attempt.stop()
            self._wait(self._attempt, SAVING_SECONDS)
        return DelayedSubmission(TrialJob(self.task))

    def _begin(self) -> Attempt:
        while True:
            with _undisturbed():
                attempt = Attempt.begin(self.task)
            if attempt is not None:
                return attempt
            time.sleep(LOOK_SECONDS)

    def _wait(self, attempt: Attempt, patience: float = float("inf")) -> None:
        deadline = time.monotonic() + patience
        over = False
        while not over and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
            with _undisturbed():
                if self._leaving:
                    attempt.stop()
                    self._leaving = False
                over = attempt.poll()

    def _leave(self, _: int, __: FrameType | None) -> None:
        self._leaving = True


def _undisturbed() -> AbstractContextManager[None]:
    """Keep `checkpoint` from interrupting this context, in which a process is being inspected.

    Processes that are started in this context never get SIGUSR2, which is meant for the job alone.
    """
    return blocked(signal.SIGUSR2)


class Queue:
    """The jobs that SLURM still has."""

    def live(self, jobs: Mapping[str, str]) -> set[str]:
        """Names of the trials whose jobs are queued, running or to be run again.

        Args:
            jobs: job id of each trial.
        """
        done = subprocess.run(
            ["squeue", "-h", "-r", "-u", getpass.getuser(), "-o", "%i"],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            # The controller does not answer at the moment, so no job is known to have ended.
            return set(jobs)
        known = set(done.stdout.split())
        return {name for name, job in jobs.items() if job in known}


@final
class Slurm(Launcher):
    """Launcher of one array job for all trials that have no job.

    Args:
        directory: directory of the sweep.
        options: options of the jobs.
        jobs: number of jobs that run at once.
        executor: executor of submitit; the one for SLURM by default.
        queue: the jobs that SLURM still has.

    Raises:
        UsageError: SLURM or submitit is missing here.
    """

    interval = 2.0

    def __init__(
        self,
        directory: SweepDirectory,
        options: SlurmOptions,
        jobs: int,
        executor: "AutoExecutor | None" = None,
        queue: Queue | None = None,
    ) -> None:
        self.directory, self.jobs = directory, jobs
        self._executor = executor or make_executor(directory.slurm, options, jobs)
        self._queue = queue or Queue()
        self._record = directory.slurm / "jobs.json"
        self._watched: dict[str, str] = {}
        self._left = False

    def start(self, tasks: Sequence[Task]) -> None:
        """Submit the trials whose job of an earlier call, if any, has ended."""
        known: dict[str, str] = (
            json.loads(self._record.read_text()) if self._record.exists() else {}
        )
        live = self._queue.live({t.name: known[t.name] for t in tasks if t.name in known})
        fresh = [task for task in tasks if task.name not in live]
        submitted: dict[str, str] = {}
        if fresh:
            with self._executor.batch():
                jobs = [self._executor.submit(TrialJob(task)) for task in fresh]
            submitted = {task.name: job.job_id for task, job in zip(fresh, jobs, strict=True)}
            write_json(self._record, {**known, **submitted})
        self._watched = {**{name: known[name] for name in live}, **submitted}
        if self._watched:
            ids = sorted({job.partition("_")[0] for job in self._watched.values()})
            print(f"SLURM jobs {', '.join(ids)}: {len(fresh)} submitted, {len(live)} there already")

    def poll(self) -> bool:
        """Whether SLURM still has any watched job; a trial whose job has gone is not running."""
        if self._left:
            return False
        live = self._queue.live(self._watched)
        for name in self._watched.keys() - live:
            del self._watched[name]
            self.directory.forget_dead(name)
        return bool(self._watched)

    def stop(self) -> str:
        """Stop watching the jobs, which go on without the process that submitted them."""
        self._left = True
        ids = sorted({job.partition("_")[0] for job in self._watched.values()})
        return (
            f"the jobs go on; the same command watches them again, scancel {' '.join(ids)} ends "
            "them"
        )

    def kill(self) -> None:
        """Do nothing more than `stop`: the jobs go on."""


def make_executor(folder: Path, options: SlurmOptions, jobs: int) -> "AutoExecutor":
    """submitit's executor for SLURM.

    Raises:
        UsageError: SLURM or submitit is missing here.
    """
    if find_spec("submitit") is None:
        raise UsageError("--launcher slurm needs submitit: pip install 'submitit>=1.5,<2'")
    if shutil.which("sbatch") is None:
        raise UsageError("--launcher slurm needs SLURM, and there is no sbatch on this machine")
    import submitit

    folder.mkdir(parents=True, exist_ok=True)
    executor = submitit.AutoExecutor(
        folder, cluster="slurm", slurm_max_num_timeout=options.timeouts
    )
    extra: dict[str, Any] = {"requeue": True, **options.extra}
    if options.mem is not None:
        extra["mem"] = options.mem
    asked: dict[str, Any] = {
        "slurm_partition": options.partition,
        "slurm_account": options.account,
        "slurm_qos": options.qos,
        "slurm_gpus_per_node": options.gpus or None,
        # No module of the directory of a job stands in for a library's.
        "slurm_setup": ["export PYTHONSAFEPATH=1", *options.setup],
    }
    executor.update_parameters(
        name="sweep",
        timeout_min=options.time,
        cpus_per_task=options.cpus,
        slurm_array_parallelism=jobs,
        slurm_signal_delay_s=options.signal_seconds,
        slurm_additional_parameters=extra,
        **{key: value for key, value in asked.items() if value is not None},
    )
    return executor


def open_slurm(setting: Setting) -> Launcher:
    """Open the launcher of `--launcher slurm`."""
    return Slurm(setting.directory, setting.options, setting.jobs)
