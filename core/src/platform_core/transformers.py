"""Registers exported networks with transformers; folders that were exported name this module."""

from platform_published.transformers import (
    PlatformConfig,
    PlatformForCausalLM,
    PlatformForMaskedLM,
)

__all__ = ["PlatformConfig", "PlatformForCausalLM", "PlatformForMaskedLM"]
