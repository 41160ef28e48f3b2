"""Test settings of the platform, which the conftest of every test folder imports.

Hypothesis draws the same examples every time and has no deadline. Test workers and the processes
that they start use one thread each. No test inherits the precision that the accelerator of another
test has set for the whole process. The fixture `stub_parts` registers the parts of `stubs` for a
test module.
"""

import os
from collections.abc import Iterator

import pytest
import torch
from accelerate.state import AcceleratorState
from hypothesis import settings

os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

settings.register_profile("platform", deadline=None, derandomize=True, max_examples=30)
settings.load_profile("platform")


@pytest.fixture(autouse=True)
def fresh_accelerator() -> None:
    """Reset the accelerator's global state before each test."""
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def stub_parts() -> Iterator[str]:
    """Register the parts of `platform_core.testing.stubs` for commands; yield that module's name.

    `find_plugins({})` does not read the environment; `find_plugins()` does.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLATFORM_PLUGINS", "platform_core.testing.stubs")
        yield "platform_core.testing.stubs"


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark `slow`, so that the tests of one package need no configuration."""
    config.addinivalue_line(
        "markers", "slow: takes more than a few seconds; left out of the quick set"
    )
