"""The script for a GPU runs to its end without one, or says what is wrong."""

import os
import subprocess
from pathlib import Path

import forked
import pytest
import torch

SCRIPT = Path(__file__).parents[1] / "experiments/gpu/check.sh"


def check(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": forked.python()}
    command = ["bash", str(SCRIPT), *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_rehearsal_writes_its_table(tmp_path: Path) -> None:
    done = check("--rehearse", str(tmp_path / "check"))
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "check" / "table.md").read_text()
    assert "| ar, compile false |" in table
    rows = [row.split("|") for row in table.splitlines() if row.startswith("| ")]
    whole, parts = (row[5] for row in rows if row[1].strip().startswith(("undisturbed", "resumed")))
    assert whole == parts
    assert "ar, update " in table
    assert "| ar, cache |" in table


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_is_refused_in_one_line(tmp_path: Path) -> None:
    done = check(str(tmp_path / "check"))
    assert done.returncode == 2
    assert "no GPU" in done.stderr
    assert not (tmp_path / "check").exists()
