"""Settings of the tests of the plugin guidance."""

from platform_core.testing.settings import (  # noqa: F401
    fresh_accelerator,
    pytest_configure,
    stub_parts,
)
