"""A package of the platform: a callback that limits the time of training."""
