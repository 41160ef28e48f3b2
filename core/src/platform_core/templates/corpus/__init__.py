"""A package of the platform: a corpus that a rule makes."""
