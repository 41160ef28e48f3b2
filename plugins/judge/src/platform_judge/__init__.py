"""Judges of samples: figures under another language model, such as generative perplexity."""
