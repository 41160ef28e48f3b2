"""A run that is killed at any file event, or told to stop at any time, loses nothing and says so.

Each case is a process that forks from one which has imported everything (`fuzz.Bench`). It kills
itself with SIGKILL as it is about to touch a file for the n-th time; then the run goes on, and has
to end as an undisturbed one, byte for byte. `python tests/endings.py` counts all cases.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fuzz

COMMAND = "import sys; from platform_core.cli import main; sys.exit(main())"

TINY = (  # noqa: SIM905
    "--process=mdlm --backbone.hidden_size=16 --backbone.num_blocks=1 --backbone.num_heads=2 "
    "--backbone.cond_size=8 --data.corpus=text --data.path=t.txt --data.length=16 --train.steps=4 "
    "--train.batch_size=2 --train.precision=fp32 --train.checkpoint_every=1 --train.log_every=1 "
    "--train.evaluate_every=2 --evaluate.sequences=2 --evaluate.on_the_way=2 --sample.number=1 "
    "--sampler.steps=2 --track.to=none"
).split()


def environment(scratch: Path) -> dict[str, str]:
    """Variables of all processes."""
    own = {"PLATFORM_CACHE": str(scratch / "cache"), "OMP_NUM_THREADS": "1"}
    return {**os.environ, **own, "HF_HUB_OFFLINE": "1"}


@dataclass(frozen=True)
class Done:
    """How a process ended, and what it printed."""

    code: int
    out: str
    errors: str


def run(folder: Path, last: int, *words: str) -> Done:
    """One `platform run` in a folder, which is killed at its `last` file event (0: never)."""
    out, errors = folder / "out", folder / "errors"
    child = os.fork()
    if not child:
        if last:
            sys.addaudithook(killer(folder / "r", last))
        else:
            sys.addaudithook(killer(folder / "r", sys.maxsize, folder / "events"))
        fuzz.become(["run", *words], folder, out, errors)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return Done(code, out.read_text(), errors.read_text())


WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree")


def killer(run: Path, last: int, count: Path | None = None) -> Callable[[str, Any], None]:
    """A hook that kills its process as it is about to change a file of a run for the n-th time.

    Args:
        run: the directory.
        last: that n.
        count: a file that gets a byte for each event.
    """
    seen = 0
    stream = os.open(count, os.O_CREAT | os.O_WRONLY | os.O_TRUNC) if count else None

    def hook(event: str, values: Any) -> None:
        nonlocal seen
        if event not in CHANGES and not (event == "open" and (values[2] or 0) & WRITES):
            return
        if not isinstance(values[0], str | bytes | Path):
            return
        if not os.path.abspath(os.fsdecode(values[0])).startswith(str(run)):
            return
        seen += 1
        if stream is not None:
            os.write(stream, b".")
        if seen == last:
            os.kill(os.getpid(), signal.SIGKILL)

    return hook


def made(folder: Path) -> Path:
    """A folder with text."""
    folder.mkdir()
    words = ["alpha", "beta", "gamma", "delta", "epsilon"]
    text = " ".join(words[(7 * n * n + n) % 5] for n in range(2000))
    (folder / "t.txt").write_text(text)
    return folder


TIMES = {"seconds", "seconds_evaluating", "peak_rss_bytes", "time", "tokens_per_second", "began"}
TIMES |= {"data_share", "flops_per_second"}


def timeless(value: object) -> object:
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in TIMES | {"digest"}}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def content(directory: Path) -> dict[str, object]:
    """Every file of a run directory, without what differs from one time to another."""
    found: dict[str, object] = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        if path.is_dir():
            found[name] = "a folder"
        elif path.suffix == ".json":
            found[name] = timeless(json.loads(path.read_text()))
        elif path.suffix == ".jsonl":
            found[name] = [timeless(json.loads(line)) for line in path.read_text().splitlines()]
        else:
            found[name] = path.read_bytes()
    return found


def killed_and_resumed(folder: Path, last: int, whole: dict[str, object]) -> str:
    """How a run that is killed at an event, and its resume, came out; "equal" is right."""
    shutil.rmtree(folder / "r", ignore_errors=True)
    for left in folder.glob(".r*"):
        left.unlink()
    done = run(folder, last, *TINY, "--output=r")
    if done.code != -signal.SIGKILL:
        return f"not killed ({done.code})"
    begun = (folder / "r" / "config.yaml").is_file()
    again = run(folder, 0, *(["--resume=r"] if begun else [*TINY, "--output=r"]))
    if again.code:
        return f"exit {again.code}: {again.errors[-300:]}"
    after = content(folder / "r")
    # Where the environment is another at resume it is kept; here it never is.
    return "equal" if after == whole else f"differs in {sorted(differing(whole, after))[:5]}"


def differing(one: dict[str, object], other: dict[str, object]) -> set[str]:
    return {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}


def events(folder: Path) -> tuple[int, dict[str, object]]:
    """How many file events an undisturbed run has, and what it leaves."""
    done = run(folder, 0, *TINY, "--output=r")
    assert done.code == 0, done.errors
    return len((folder / "events").read_bytes()), content(folder / "r")


def stopped_after(folder: Path, seconds: float, number: int, *words: str) -> str:
    """How a run came out that is told to stop after some seconds."""
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "run", *words],
        cwd=folder,
        env=environment(folder.parent),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(seconds)
    process.send_signal(number)
    out, errors = process.communicate(timeout=120)
    if "Traceback" in errors:
        return f"traceback: {errors[-300:]}"
    said = [line for line in (out + errors).splitlines() if "stopped by" in line or "saved" in line]
    if process.returncode == 75 and len(said) == 1:
        return "75"
    return "0" if process.returncode == 0 else f"exit {process.returncode}: {out}{errors[-300:]}"


def stops(folder: Path, number: int, life: float, whole: dict[str, object]) -> Counter[str]:
    """Outcomes of runs that are told to stop at times of their life, and then go on."""
    found = Counter[str]()
    for case in range(number):
        shutil.rmtree(folder / "r", ignore_errors=True)
        asked = (signal.SIGTERM, signal.SIGUSR1)[case % 2]
        outcome = stopped_after(folder, 0.5 + case * life / number, asked, *TINY, "--output=r")
        begun = (folder / "r" / "config.yaml").is_file()
        again = run(folder, 0, *(["--resume=r"] if begun else [*TINY, "--output=r"]))
        if again.code or differing(whole, content(folder / "r")):
            outcome += f", then {again.code} {again.errors[-300:]}"
        found[outcome] += 1
    return found


def main() -> int:
    """Kills at file events of a run and sends signals over its life; whether any lost something."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--every", type=int, default=1, help="kill at every N-th event")
    parser.add_argument("--signals", type=int, default=30, help="times at which to send a signal")
    parser.add_argument("--beside", action="store_true", help="a thread writes checkpoints")
    asked = parser.parse_args()
    if asked.beside:
        TINY.append("--train.checkpoint_writing=beside")
    with tempfile.TemporaryDirectory() as scratch:
        os.environ |= environment(Path(scratch))
        fuzz.import_everything()
        folder = made(Path(scratch) / "w")
        number, whole = events(folder)
        chosen = range(1, number + 1, asked.every)
        kills = Counter(killed_and_resumed(folder, last, whole) for last in chosen)
        print(f"{number} file events, {len(chosen)} kills: {dict(kills)}", flush=True)
        shutil.rmtree(folder / "r")
        start = time.monotonic()
        stopped_after(folder, 0, signal.SIGCONT, *TINY, "--output=r")
        life = time.monotonic() - start
        stopped = stops(folder, asked.signals, life, whole) if asked.signals else Counter[str]()
        print(f"{asked.signals} signals over {life:.1f} s: {dict(stopped)}", flush=True)
    return int(set(kills) != {"equal"} or not set(stopped) <= {"75", "0"})


if __name__ == "__main__":
    raise SystemExit(main())
