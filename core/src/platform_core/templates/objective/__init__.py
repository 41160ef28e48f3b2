"""A package of the platform: the bound, with less weight on almost clean text."""
