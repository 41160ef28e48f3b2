"""Spelling of option names on the command line, alike for every verb."""

from collections.abc import Sequence


def underscored(argv: Sequence[str]) -> list[str]:
    """Replaces `-` by `_` in names of options, so that both are accepted; values stay unchanged."""
    words = []
    for word in argv:
        name, equals, value = word.partition("=")
        if name.startswith("--") and len(name) > 2:
            word = "--" + name[2:].replace("-", "_") + equals + value
        words.append(word)
    return words
