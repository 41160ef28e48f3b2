"""Registers exported networks with transformers; exported folders refer to this module by name."""

from platform_published.transformers import (
    PlatformConfig,
    PlatformForCausalLM,
    PlatformForMaskedLM,
)

__all__ = ["PlatformConfig", "PlatformForCausalLM", "PlatformForMaskedLM"]
