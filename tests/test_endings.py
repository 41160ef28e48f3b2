"""A run that is killed or told to stop at any time ends, resumed, as if it had not been."""

import subprocess
from pathlib import Path

import forked
import pytest

ENDINGS = Path(__file__).parent / "endings.py"


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [["--every=30", "--signals=3"], ["--every=40", "--signals=1", "--beside"]]
)
def test_no_ending_loses_anything(words: list[str]) -> None:
    done = subprocess.run(
        [forked.python(), ENDINGS, *words], capture_output=True, text=True, timeout=1500
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
