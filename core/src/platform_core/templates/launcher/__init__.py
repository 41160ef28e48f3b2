"""A package of the platform: a launcher that runs one trial at a time."""
