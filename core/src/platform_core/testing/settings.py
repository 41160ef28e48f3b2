"""What every test folder of the platform begins with; each conftest imports it.

Hypothesis draws the same examples every time and holds no clock, workers and what they start have
one thread each, and no test inherits the precision that another one's accelerator has chosen for
the whole process.
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
    """Forgets the accelerator of the test before."""
    AcceleratorState._reset_state(reset_partial_state=True)
