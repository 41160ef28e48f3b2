"""Masks whose rates differ by token value and are learned."""
