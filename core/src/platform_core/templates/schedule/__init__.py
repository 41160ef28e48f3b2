"""A package of the platform: a schedule, alpha = (1 - t)^power."""
