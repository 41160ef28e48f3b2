"""A package of the platform: a small transformer."""
