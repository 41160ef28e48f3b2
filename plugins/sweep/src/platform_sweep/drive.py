"""The main loop of a sweep: it starts unfinished trials, reports events, and stops on a signal."""

import signal
import time
from collections.abc import Mapping, Sequence

from platform_core.record.files import ReadError, read_json
from platform_core.record.sweep import State, SweepDirectory
from platform_core.runtime.signals import Interruption
from platform_sweep.attempt import Task
from platform_sweep.launcher import Launcher

FAILED = 1


def drive(directory: SweepDirectory, tasks: Sequence[Task], launcher: Launcher) -> int:
    """Run unfinished trials and return the sweep's exit code.

    0: all trials are done; 1: some failed; 75 or 130: the sweep was stopped.

    Args:
        directory: directory of the sweep.
        tasks: one task for each trial, in order.
        launcher: launcher that runs the tasks.
    """
    for task in tasks:
        directory.forget_dead(task.name)
    left = [task for task in tasks if not task.done()]
    report = _Report(directory, tasks)
    print(f"{len(tasks)} trials, {len(tasks) - len(left)} done, {len(left)} to run", flush=True)
    stopping = False
    with Interruption(signal.SIGTERM, signal.SIGINT, second_stops=False) as interruption:
        launcher.start(left)
        while launcher.poll():
            report.look()
            time.sleep(launcher.interval)
            if interruption.noticed and not stopping:
                stopping = True
                print(f"stopping: {launcher.stop()}", flush=True)
            if len(interruption.noticed) > 1:
                launcher.kill()
    report.look()
    print(report.ending(), flush=True)
    if interruption.noticed:
        return interruption.exit_code
    return 0 if all(task.done() for task in tasks) else FAILED


def duration(seconds: float) -> str:
    """A time for people: 40 s, 12 min, 3.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class _Report:
    """Printer of one line for each event of a trial."""

    def __init__(self, directory: SweepDirectory, tasks: Sequence[Task]) -> None:
        self.directory, self.tasks = directory, tasks
        self._states = self._read()
        self._began, self._done_before = time.monotonic(), self._finished()

    def look(self) -> None:
        """Print what has changed since the last look."""
        before, self._states = self._states, self._read()
        for name, state in self._states.items():
            if state != before[name]:
                line = self._line(name, before[name], state)
                if line:
                    print(f"[{self._finished()}/{len(self.tasks)}] {name} {line}", flush=True)

    def ending(self) -> str:
        """One line with the number of trials in each state and the path of the record."""
        counts = {
            status: sum(state.status == status for state in self._states.values())
            for status in ("finished", "failed", "interrupted", "running", "waiting")
        }
        counted = ", ".join(f"{number} {status}" for status, number in counts.items() if number)
        lost = sum(state.measurements_failed for state in self._states.values())
        more = f"; {lost} measurements failed" if lost else ""
        return f"{counted}{more}; record: {self.directory.path}"

    def _line(self, name: str, before: State, after: State) -> str:
        log = self.directory.log(name)
        if after.status == "running":
            failed = after.measurements_failed - before.measurements_failed
            if failed > 0:
                return f"measurement failed: {after.evaluations[-1]['message']}; see {log}"
            measured = len(after.evaluations)
            if measured > len(before.evaluations):
                return f"measured {measured}"
            again = f" again (attempt {after.attempts})" if after.attempts > 1 else ""
            return f"started{again}" if after.started != before.started else ""
        if after.status == "finished":
            return self._ended_well(name)
        code = "" if after.exit_code is None else f" (exit {after.exit_code})"
        return f"{after.status}{code}: {after.message}; see {log}"

    def _ended_well(self, name: str) -> str:
        """What came out of a trial, how long it took, and how long the others will take."""
        try:
            result = read_json(self.directory.run(name).result)
        except (OSError, ReadError):
            return "finished"
        said = ["finished"]
        if isinstance(bits := result.get("bits_per_character"), float):
            said.append(f"{bits:.3f} bits per character")
        parts = [result.get(key) for key in ("seconds", "seconds_evaluating")]
        seconds = [part for part in parts if isinstance(part, float)]
        said += [duration(sum(seconds))] if seconds else []
        done, left = self._finished() - self._done_before, len(self.tasks) - self._finished()
        if done > 0 and left:
            said.append(f"about {duration((time.monotonic() - self._began) / done * left)} left")
        return ", ".join(said)

    def _finished(self) -> int:
        return sum(state.status == "finished" for state in self._states.values())

    def _read(self) -> Mapping[str, State]:
        return {task.name: self.directory.state(task.name) for task in self.tasks}
