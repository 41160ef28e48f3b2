"""A package of the platform: a reward of texts."""
