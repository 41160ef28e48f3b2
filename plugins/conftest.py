"""Settings of the plugins' tests."""

from platform_core.testing.settings import fresh_accelerator  # noqa: F401
