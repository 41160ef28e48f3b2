"""A package of the platform: predictions of the clean token at a temperature."""
