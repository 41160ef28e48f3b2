"""The start of a process: ways of training that would go wrong in silence are refused."""

import pytest

from platform_core.errors import UsageError
from platform_core.runtime.accelerator import SHARDING, start


@pytest.mark.parametrize("variable", SHARDING)
@pytest.mark.parametrize("value", ["1", "true", "True"])
def test_sharding_is_refused_in_one_line(variable, value, monkeypatch):
    monkeypatch.setenv(variable, value)
    with pytest.raises(UsageError, match=rf"{SHARDING[variable]} was asked for \({variable}\)"):
        start("fp32")


def test_variables_that_ask_for_nothing_are_left_alone(monkeypatch):
    for variable in SHARDING:
        monkeypatch.setenv(variable, "false")
    assert start("fp32").num_processes == 1
