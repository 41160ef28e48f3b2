"""Mutants: each is one fault that compiles, outside messages; a seed decides which are tried."""

import ast

import pytest
from mutations import ROOT, modules, mutants, nearest_tests, sample, written

SOURCE = """
def nucleus(mass: float, s, t, top_p=1.0):
    if top_p > 2:
        raise ValueError(f"top_p is {top_p + 1}")
    mass = mass.double().clamp_min(0)
    return ~(mass - s >= top_p) & (t == 1)
"""


def faults(source: str) -> set[tuple[str, str]]:
    return {(mutant.operator, mutant.mutated) for mutant in mutants("a.py", source)}


@pytest.mark.parametrize(
    "fault",
    [
        ("comparison", "return ~((mass - s > top_p)) & (t == 1)"),
        ("comparison", "return ~(mass - s >= top_p) & ((t != 1))"),
        ("arithmetic", "return ~((mass + s) >= top_p) & (t == 1)"),
        ("junction", "return (~(mass - s >= top_p) | (t == 1))"),
        ("sign", "return (mass - s >= top_p) & (t == 1)"),
        ("constant", "return ~(mass - s >= top_p) & (t == 2)"),
        ("clamp", "mass = (mass.double())"),
        ("precision", "mass = mass.float().clamp_min(0)"),
        ("exchange", "return ~(mass - t >= top_p) & (t == 1)"),
    ],
    ids=str,
)
def test_a_line_is_mutated_in_each_way(fault):
    assert fault in faults(SOURCE)


def test_messages_and_annotations_are_left_alone():
    lines = {mutant.line for mutant in mutants("a.py", SOURCE)}
    assert lines == {2, 3, 5, 6}


def test_each_mutant_of_the_mathematics_compiles_and_differs():
    file = "core/src/platform_core/process.py"
    source = (ROOT / file).read_text()
    found = list(mutants(file, source))
    assert len(found) > 100
    before = ast.dump(ast.parse(source))
    for mutant in found[::7]:
        assert ast.dump(ast.parse(written(mutant, source))) != before


def test_a_seed_decides_the_sample_which_has_every_operator():
    found = [m for file in modules([]) for m in mutants(file, (ROOT / file).read_text())]
    one, same, other = (sample(found, 30, seed) for seed in (0, 0, 1))
    assert one == same != other
    assert {mutant.operator for mutant in one} == {mutant.operator for mutant in found}


@pytest.mark.slow
def test_every_module_has_tests_and_its_own_come_first():
    nearest = nearest_tests()
    assert all(stages[0] for stages in nearest.values())
    assert nearest["core/src/platform_core/rows.py"][0][0] == "core/tests/test_rows.py"
