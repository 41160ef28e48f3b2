"""The core of the platform: roles, composition, training, evaluation and sampling."""
