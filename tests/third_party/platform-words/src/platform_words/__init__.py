"""Whole words as tokens, and the words of samples."""
