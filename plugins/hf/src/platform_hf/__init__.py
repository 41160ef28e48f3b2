"""Networks of the transformers library as a backbone."""
