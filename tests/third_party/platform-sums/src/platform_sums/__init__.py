"""Sums that a rule makes, and how many a network gets right."""
