"""`platform bench --one`: what is no case is one line."""

import json

import pytest

import platform_bench as bench
from platform_core.cli import main

CASE = json.loads(bench.Case("training", "rows", bench.Size(50, 1, 8, "tiny", 16)).to_json())
JUNK = {
    "empty": "",
    "words": "junk",
    "a number": "3",
    "a list": "[]",
    "nothing": "null",
    "no size": {"suite": "training", "path": "rows"},
    "another suite": {**CASE, "suite": "os"},
    "another path": {**CASE, "path": "no"},
    "a size of words": {**CASE, "size": {**CASE["size"], "states": "many"}},
    "no states": {**CASE, "size": {**CASE["size"], "states": 0}},
    "a size too many": {**CASE, "size": {**CASE["size"], "depth": 1}},
    "brackets": "[" * 100_000,
}


@pytest.mark.parametrize("name", JUNK)
def test_junk_is_one_line(capsys, name):
    junk = JUNK[name]
    text = junk if isinstance(junk, str) else json.dumps(junk)
    assert main(["bench", f"--one={text}"]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert "--one" in said.err
    assert len(said.err) < 400


def test_a_case_is_read_back():
    case = bench.Case("training", "rows", bench.Size(50, 1, 8, "tiny", None))
    assert bench.Case.from_json(case.to_json()) == case
