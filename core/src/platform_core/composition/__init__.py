"""Composition: from words of the command line to objects.

sources -> choice -> parser -> compatibility -> compose
"""
