"""A package of the platform: a callback with a limit of time."""
