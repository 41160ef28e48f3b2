"""Settings of the whole test run."""

from hypothesis import settings

settings.register_profile("platform", deadline=None, derandomize=True, max_examples=30)
settings.load_profile("platform")
