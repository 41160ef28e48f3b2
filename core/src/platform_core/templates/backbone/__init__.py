"""A package of the platform: a network of convolutions."""
