"""A run that is killed at any file event, or told to stop at any time, loses nothing and says so.

Each case is a process that forks from one which has imported everything (`fuzz.Bench`). It kills
itself with SIGKILL as it is about to touch a file for the n-th time; then the run goes on, and has
to end as an undisturbed one, byte for byte. `python tests/test_endings.py` counts all cases.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

TINY = (  # noqa: SIM905
    "--process=mdlm --backbone.hidden_size=16 --backbone.num_blocks=1 --backbone.num_heads=2 "
    "--backbone.cond_size=8 --data.corpus=text --data.path=t.txt --data.length=16 --train.steps=4 "
    "--train.batch_size=2 --train.precision=fp32 --train.checkpoint_every=1 --train.log_every=1 "
    "--train.evaluate_every=2 --evaluate.sequences=2 --evaluate.on_the_way=2 --sample.number=1 "
    "--sampler.steps=2 --track.to=none"
).split()

CHILD = """
import os, signal, sys
from pathlib import Path

last = int(sys.argv[1])
seen = 0

def counted(event, values):
    global seen
    if event == "open":
        path, mode, flags = values
        if not isinstance(path, (str, bytes)) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
        path = os.fsdecode(path)
    elif event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree"):
        path = os.fsdecode(values[0]) if isinstance(values[0], (str, bytes, Path)) else ""
    else:
        return
    if not os.path.abspath(path).startswith(os.getcwd() + "/r"):
        return
    seen += 1
    if seen == last:
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(counted)
from platform_core.cli import main
code = main(sys.argv[2:])
print("events", seen)
sys.exit(code)
"""


def environment(folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PLATFORM_CACHE": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }


def run(folder: Path, last: int, *words: str) -> subprocess.CompletedProcess[str]:
    """One command in a folder, which is killed at its `last` file event (0: never)."""
    return subprocess.run(
        [sys.executable, "-c", CHILD, str(last), "run", *words],
        cwd=folder,
        env=environment(folder.parent),
        capture_output=True,
        text=True,
        timeout=200,
    )


def made(folder: Path) -> Path:
    """A folder with text."""
    folder.mkdir()
    words = ["alpha", "beta", "gamma", "delta", "epsilon"]
    text = " ".join(words[(7 * n * n + n) % 5] for n in range(2000))
    (folder / "t.txt").write_text(text)
    return folder


TIMES = {"seconds", "seconds_evaluating", "peak_rss_bytes", "time", "tokens_per_second", "began"}


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
    if done.returncode != -signal.SIGKILL:
        return f"not killed ({done.returncode})"
    begun = (folder / "r" / "config.yaml").is_file()
    again = run(folder, 0, *(["--resume=r"] if begun else [*TINY, "--output=r"]))
    if again.returncode:
        return f"exit {again.returncode}: {again.stderr[-300:]}"
    after = content(folder / "r")
    # Where the environment is another at resume it is kept; here it never is.
    return "equal" if after == whole else f"differs in {sorted(differing(whole, after))[:5]}"


def differing(one: dict[str, object], other: dict[str, object]) -> set[str]:
    return {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}


def events(folder: Path) -> tuple[int, dict[str, object]]:
    """How many file events an undisturbed run has, and what it leaves."""
    done = run(folder, 0, *TINY, "--output=r")
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1]), content(folder / "r")


@pytest.mark.slow
def test_a_run_killed_at_any_file_event_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    folder = made(tmp_path / "w")
    number, whole = events(folder)
    assert number > 69
    chosen = sorted({1 + n * (number - 1) // 11 for n in range(12)})
    outcomes = {last: killed_and_resumed(folder, last, whole) for last in chosen}
    assert set(outcomes.values()) == {"equal"}, outcomes


def stopped_after(folder: Path, seconds: float, number: int, *words: str) -> str:
    """How a run came out that is told to stop after some seconds."""
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, "0", "run", *words],
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


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_at_any_time_ends_with_75_and_a_word(tmp_path: Path, number: int) -> None:
    folder = made(tmp_path / "w")
    start = time.monotonic()
    _, whole = events(folder)
    life = time.monotonic() - start
    for share in (0.1, 0.3, 0.5, 0.7, 0.9):
        shutil.rmtree(folder / "r", ignore_errors=True)
        outcome = stopped_after(folder, max(0.5, share * life), number, *TINY, "--output=r")
        assert outcome in ("75", "0")
        begun = (folder / "r" / "config.yaml").is_file()
        again = run(folder, 0, *(["--resume=r"] if begun else [*TINY, "--output=r"]))
        assert again.returncode == 0, again.stderr
        assert not differing(whole, content(folder / "r"))


def main() -> None:
    """Every file event of a run; and SIGTERM and SIGUSR1 at 30 times of its life."""
    folder = made(Path(sys.argv[1]) / "w")
    start = time.monotonic()
    number, whole = events(folder)
    life = time.monotonic() - start
    chosen = range(1, number + 1, int(sys.argv[2]) if len(sys.argv) > 2 else 1)
    kills = Counter[str]()
    for last in chosen:
        outcome = killed_and_resumed(folder, last, whole)
        kills[outcome] += 1
        if outcome != "equal":
            print(f"event {last}: {outcome}", flush=True)
    print(f"{number} events, {len(chosen)} kills: {dict(kills)}", flush=True)
    stops = Counter[str]()
    for case in range(30):
        shutil.rmtree(folder / "r", ignore_errors=True)
        number = (signal.SIGTERM, signal.SIGUSR1)[case % 2]
        outcome = stopped_after(folder, 0.3 + case * life / 30, number, *TINY, "--output=r")
        stops[outcome] += 1
    print(f"30 signals over {life:.1f} s: {dict(stops)}")


if __name__ == "__main__":
    main()
