"""Settings of the tests of the plugin aim."""

from platform_core.testing.settings import (  # noqa: F401
    checked_types,
    fresh_accelerator,
    pytest_configure,
    stub_parts,
)
