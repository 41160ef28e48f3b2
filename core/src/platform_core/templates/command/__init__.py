"""A package of the platform: a verb that counts the weights of a run."""
