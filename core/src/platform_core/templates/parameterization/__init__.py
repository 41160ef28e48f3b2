"""A package of the platform: laws of the clean token at a temperature."""
