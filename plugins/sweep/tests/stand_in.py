"""Stands in for `platform run` and `platform eval` in tests of sweeps: the same traces, at once.

`script.json` in the directory of the sweep's parent says what each call does: "run NAME" or
"eval NAME" to a list of acts, the last of which is repeated. `calls.jsonl` there tells of each.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path


def main() -> int:
    verb, *words = sys.argv[1:]
    options = dict(word[2:].split("=", 1) for word in words if word.startswith("--"))
    run = Path(options.get("output") or options.get("resume") or words[0])
    home = run.parents[2]
    calls = home / "calls.jsonl"
    with calls.open("a") as stream:
        call = {"verb": verb, "name": run.name, "words": words, "environment": dict(os.environ)}
        stream.write(json.dumps(call) + "\n")
    made = [json.loads(line) for line in calls.read_text().splitlines()]
    number = sum(call["verb"] == verb and call["name"] == run.name for call in made)
    script = json.loads((home / "script.json").read_text())
    acts = script.get(f"{verb} {run.name}", ["succeed"])
    if "output" in options:
        run.mkdir(parents=True)
        (run / "config.yaml").write_text(Path(options["config"]).read_text())
    return ACTS[acts[min(number, len(acts)) - 1]](run)


def succeed(run: Path) -> int:
    if not (run / "result.json").exists():
        (run / "result.json").write_text('{"steps": 1}')
    return 0


def fail(_: Path) -> int:
    print("Traceback\nValueError: too large", file=sys.stderr)
    return 1


def mistake(_: Path) -> int:
    return 2


def die(_: Path) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def stop_the_sweep(run: Path) -> int:
    """As a run that a stopping sweep tells to save itself."""
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    os.kill(os.getppid(), signal.SIGTERM)
    return wait(asked)


def end_and_stop_the_sweep(run: Path) -> int:
    stop_the_sweep(run)
    return succeed(run)


def wait_for_sigterm(run: Path) -> int:
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    (run / "waiting").touch()
    return wait(asked)


def wait(asked: list[int]) -> int:
    deadline = time.monotonic() + 20
    while not asked and time.monotonic() < deadline:
        time.sleep(0.01)
    print("saved at step 3" if asked else "nobody asked")
    return 75 if asked else 1


ACTS = {
    "succeed": succeed,
    "fail": fail,
    "mistake": mistake,
    "die": die,
    "stop the sweep": stop_the_sweep,
    "end, and stop the sweep": end_and_stop_the_sweep,
    "wait for SIGTERM": wait_for_sigterm,
}

if __name__ == "__main__":
    sys.exit(main())
