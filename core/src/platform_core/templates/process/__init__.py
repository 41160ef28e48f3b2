"""A package of the platform: noise that prefers some tokens."""
