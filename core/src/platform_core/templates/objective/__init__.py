"""A package of the platform: an objective with less weight on almost clean text."""
