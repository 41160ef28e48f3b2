"""A package of the platform: the reverse process on an uneven grid of times."""
