"""A package of the platform: an optimizer."""
