"""A package of the platform: an evaluation of how varied samples are, and its metric."""
