"""What all tests begin with; both test folders load it.

Hypothesis draws the same examples every time and holds no clock, and no test inherits the precision
that another one's accelerator has chosen for the whole process.
"""

import pytest
from accelerate.state import AcceleratorState
from hypothesis import settings

settings.register_profile("platform", deadline=None, derandomize=True, max_examples=30)
settings.load_profile("platform")


@pytest.fixture(autouse=True)
def fresh_accelerator():
    """Forgets the accelerator of the test before."""
    AcceleratorState._reset_state(reset_partial_state=True)
