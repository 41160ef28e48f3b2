"""Guidance by a classifier and by rewards: D-CBG, best of n, Feynman-Kac steering."""
