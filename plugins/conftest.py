"""Settings of the plugins' tests."""

from deterministic import fresh_accelerator  # noqa: F401
