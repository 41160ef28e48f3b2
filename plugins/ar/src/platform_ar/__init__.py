"""Autoregression: text from left to right, one token after another."""
