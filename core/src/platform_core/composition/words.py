"""Words of the command line, as every verb reads them."""

from collections.abc import Sequence


def underscored(argv: Sequence[str]) -> list[str]:
    """The words with `_` for `-` in names of options, so that either is accepted.

    Values stay as they are.
    """
    words = []
    for word in argv:
        name, equals, value = word.partition("=")
        if name.startswith("--") and len(name) > 2:
            word = "--" + name[2:].replace("-", "_") + equals + value
        words.append(word)
    return words
