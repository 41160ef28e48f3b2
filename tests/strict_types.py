"""The run-time check of types and tensor shapes, which pyproject.toml asks jaxtyping to install.

A module of its own because jaxtyping's pytest option takes a name, not an expression, beside more
than one package.
"""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
"""beartype that takes an int where a float is asked for, as mypy does."""
