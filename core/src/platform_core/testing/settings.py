"""Test settings of the platform, which the conftest of every test folder imports.

Hypothesis draws the same examples every time and has no deadline. Test workers and the processes
that they start use one thread each. No test inherits the precision that the accelerator of another
test has set for the whole process.
"""

import os

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
