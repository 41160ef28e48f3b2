"""What another language model says of samples: generative perplexity and its kin."""
