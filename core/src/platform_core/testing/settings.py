"""Test settings of the platform, which the conftest of every test folder imports.

Hypothesis draws the same examples every time and has no deadline. Test workers and the processes
that they start use one thread each. No test inherits the precision that the accelerator of another
test has set for the whole process. Types and shapes are checked at run time in the first case of
each test. The fixture `stub_parts` registers the parts of `stubs` for a test module.
"""

import os
from collections.abc import Iterator

import jaxtyping
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


@pytest.fixture(autouse=True)
def checked_types(request: pytest.FixtureRequest) -> Iterator[None]:
    """Have jaxtyping check types and shapes in the first case of a test, and not in the others.

    The first case has the first value of every parameter; a test without parameters is one. The
    checks double the time of numerical tests, and find in all cases what they find in one. They
    run where pytest is told to install them, with `--jaxtyping-packages`.
    """
    case = getattr(request.node, "callspec", None)
    first = case is None or not any(case.indices.values())
    disabled = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", disabled or not first)
    yield
    jaxtyping.config.update("jaxtyping_disable", disabled)


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
