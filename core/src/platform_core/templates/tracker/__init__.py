"""A package of the platform: a tracker that writes tables of numbers."""
