"""A package of the platform: alpha as a power of 1 - t."""
