"""`platform sweep FILE`: many runs that differ in a few options, checked before any starts.

The same command continues a sweep that was stopped, tries failed trials again, and runs trials that
were added to the file; `--resume DIR` continues with the file that the sweep was started with.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platform_core.cli.parser import Parser, natural, positive
from platform_core.errors import UsageError
from platform_core.record.yaml_tree import word_value
from platform_core.registry.loading import load_plugins

if TYPE_CHECKING:
    from platform_core.record.sweep import SweepDirectory
    from platform_core.registry.parts import Plugins
    from platform_sweep.launcher import Launcher, Setting
    from platform_sweep.plan import Plan


def main(argv: Sequence[str]) -> int:
    """Run a sweep and return its exit code.

    0: every trial is done; 1: some failed; 2: one cannot run; 75 or 130: stopped by a signal.

    Raises:
        UsageError: the file is not a valid sweep, or a trial cannot run.
    """
    asked = _parser().parse_args(argv)
    if (asked.file is None) == (asked.resume is None):
        raise UsageError("give either the sweep's file or --resume DIR: platform sweep FILE.yaml")
    if asked.resume and asked.output:
        raise UsageError("--resume continues in its own directory; leave out --output")

    from platform_core.record.sweep import SweepDirectory
    from platform_sweep.attempt import Task
    from platform_sweep.drive import drive
    from platform_sweep.file import SlurmOptions, read_sweep
    from platform_sweep.launcher import Setting
    from platform_sweep.plan import make_plan, refuse_changed

    if asked.resume:
        directory = SweepDirectory.existing(asked.resume)
        file = directory.file
    else:
        file = asked.file
        directory = SweepDirectory(asked.output or Path("runs") / file.stem)
    sweep = read_sweep(file)
    given = dict(_setting(text) for text in asked.slurm)
    slurm = SlurmOptions.read({**sweep.slurm, **given}, "slurm")
    plugins = load_plugins()
    plugins.get("launcher", asked.launcher)
    named = directory.names()
    plan = make_plan(sweep, plugins).named(named)
    refuse_changed(directory, plan)
    sys.stderr.write("".join(f"note: {note}\n" for note in plan.notes))
    if asked.dry_run:
        print("\n".join(trial.name for trial in plan.trials))
        print(f"{len(plan.trials)} trials, all valid; nothing was written")
        return 0
    content = file.read_bytes()
    launcher = _launcher(asked.launcher, plugins, Setting(directory, slurm, asked.jobs))
    _write(directory, plan, content, named)
    _prepare_tracking(directory, plan, plugins)
    variables = _threads(1 if asked.launcher == "slurm" else asked.jobs, asked.launcher)
    tasks = [
        Task(directory.path.absolute(), trial.name, trial.evaluate, asked.retry, variables)
        for trial in plan.trials
    ]
    return drive(directory, tasks, launcher)


def _write(
    directory: "SweepDirectory", plan: "Plan", content: bytes, named: Mapping[str, str]
) -> None:
    """Writes the plan, unless another sweep has changed the directory since its names were read."""
    from platform_core.record.directory import LOCK
    from platform_core.record.locks import claimed
    from platform_sweep.plan import write_plan

    busy = f"{directory.path} is being written by another sweep; give the command again"
    with claimed(directory.path / LOCK, busy=busy):
        if directory.names() != named:
            raise UsageError(f"{directory.path} has changed meanwhile; give the command again")
        write_plan(directory, plan, content)


def _parser() -> Parser:
    parser = Parser(prog="platform sweep", description=__doc__, allow_abbrev=False)
    parser.add_argument("file", metavar="FILE", type=Path, nargs="?", help="YAML file of the sweep")
    parser.add_argument(
        "--output", metavar="DIR", type=Path, help="directory of the sweep (runs/FILE's name)"
    )
    parser.add_argument("--resume", metavar="DIR", type=Path, help="sweep to continue unchanged")
    parser.add_argument(
        "--dry_run", action="store_true", help="check every trial, list them and stop"
    )
    parser.add_argument(
        "--jobs", type=positive, default=1, help="trials at once (default: %(default)s)"
    )
    parser.add_argument(
        "--retry",
        type=natural,
        default=1,
        metavar="N",
        help="how often a trial that is killed or fails is continued in this call, from its last "
        "checkpoint (default: %(default)s); a mistake (exit 2) is not tried again",
    )
    parser.add_argument(
        "--launcher",
        default="local",
        metavar="NAME",
        help="launcher of the trials: local (this machine), slurm (jobs of a cluster), or one that "
        "a plugin brings (default: %(default)s)",
    )
    parser.add_argument(
        "--slurm",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="option of the jobs, replacing the file's slurm: partition, account, qos, time "
        "(minutes), cpus, gpus, mem, signal_seconds, timeouts, setup, extra",
    )
    return parser


def _setting(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--slurm {text}: it must be KEY=VALUE, such as --slurm partition=gpu")
    return key, word_value(value)


def _launcher(name: str, plugins: "Plugins", setting: "Setting") -> "Launcher":
    from platform_sweep.launcher import Launcher

    found = plugins.load("launcher", name)(setting)
    if not isinstance(found, Launcher):
        provider = plugins.get("launcher", name).plugin.provider
        raise UsageError(f"launcher {name} ({provider}) is no platform_sweep.launcher.Launcher")
    return found


def _prepare_tracking(directory: "SweepDirectory", plan: "Plan", plugins: "Plugins") -> None:
    """Prepare trackers once before many processes use them; a tracker that fails only warns."""
    from platform_core.record.tracker import prepare_trackers

    names = sorted({name for trial in plan.trials for name in trial.trackers})
    prepare_trackers({name: plugins.load("tracker", name) for name in names}, directory.trials)


def _threads(jobs: int, launcher: str) -> Mapping[str, str]:
    """Thread limit that shares this machine's cores among the trials; none for jobs of SLURM."""
    if launcher == "slurm" or "OMP_NUM_THREADS" in os.environ:
        return {}
    from platform_core.runtime.accelerator import available_cores

    return {"OMP_NUM_THREADS": str(max(1, available_cores() // jobs))}
