"""Numbers that no machine can serve are refused before anything is allocated or counted through."""

import subprocess
from argparse import ArgumentTypeError
from pathlib import Path

import forked
import pytest
from fuzz import HUGE

from platform_core.cli.parser import natural, positive
from platform_core.composition.compose import Parsers, compose
from platform_core.errors import UsageError
from platform_core.registry.loading import find_plugins

FUZZ = Path(__file__).parent / "fuzz.py"


@pytest.mark.slow
def test_each_whole_number_is_refused_when_options_are_read() -> None:
    parsers = Parsers()
    words = ["--process=mdlm", "--callbacks=early-stopping"]
    compose(words, find_plugins({}), prog="platform run", environ={}, parsers=parsers)
    (arguments,) = parsers.values()
    whole = [option for option in arguments.numeric() if float not in arguments.kinds(option)]
    assert {"sampler.steps", "backbone.num_blocks", "data.length"} < set(whole)
    for option in {*whole} - {"seed"}:
        with pytest.raises(UsageError, match=f"{option} is {HUGE}; no machine can serve so many"):
            arguments.parse([f"--{option}={HUGE}"])
    assert arguments.parse([f"--seed={HUGE}"]).seed == HUGE
    assert arguments.parse(["--train.steps=1000000000"]).train.steps == 10**9


@pytest.mark.parametrize("words", ["1" + "0" * 12, "9" * 5000, "1000000001"])
@pytest.mark.parametrize("kind", [positive, natural])
def test_a_count_of_a_verb_is_no_larger_than_a_machine_can_serve(kind, words) -> None:
    with pytest.raises(ArgumentTypeError, match="at most 1000000000"):
        kind(words)


def test_natural_numbers_begin_with_0() -> None:
    assert natural("0") == 0
    with pytest.raises(ArgumentTypeError, match="at least 0"):
        natural("-1")
    with pytest.raises(ArgumentTypeError, match="at least 1"):
        positive("0")


@pytest.mark.slow
def test_no_numeric_option_of_a_part_or_verb_hangs_or_fills_the_memory(tmp_path: Path) -> None:
    """Every fifth part is tried; `python tests/fuzz.py numbers` tries all."""
    words = [forked.python(), FUZZ, "some-numbers"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
