"""A package of the platform: a tokenizer of whole words."""
