"""Generated mistakes of every kind end in time, in one line, without a traceback or a file."""

import subprocess
from pathlib import Path

import forked
import pytest

FUZZ = Path(__file__).parent / "fuzz.py"


@pytest.mark.parametrize(("number", "seed"), [(5, 0), pytest.param(15, 1, marks=pytest.mark.slow)])
def test_no_mistake_is_answered_badly(number: int, seed: int, tmp_path: Path) -> None:
    words = ["arguments", "yaml", "extremes", "damage", f"--number={number}", f"--seed={seed}"]
    done = subprocess.run(
        [forked.python(), FUZZ, *words], capture_output=True, text=True, cwd=tmp_path, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
