"""GIDD: noise of masks and other tokens at once, in shares that change on the way."""
