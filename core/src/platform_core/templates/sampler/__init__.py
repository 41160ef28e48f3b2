"""A package of the platform: a sampler on an uneven grid of times."""
