"""Noise that turns tokens into similar tokens first: D3PM's nearest neighbours."""
