"""The corpus: documents in three splits, and a fingerprint of their content.

    document number n: "A+B=C"; n % 20 = 9 is validation, n % 20 = 19 is test, others are train

Documents of a split always come in the same order. Packed tokens are cached under the fingerprint,
which therefore must change whenever a document or its split does.
"""

from collections.abc import Iterator
from typing import final

from platform_core.composition.options import DataOptions
from platform_core.data.corpus import Corpus
from platform_core.draws import derive_seed
from platform_core.errors import UsageError

NUMBER = 4000
LARGEST = 99
HELD_OUT = {9: "validation", 19: "test"}


@final
class NewPart(Corpus):
    """A corpus of sums of two numbers, one in each document.

    Args:
        largest: the largest number that is added.
    """

    def __init__(self, largest: int = LARGEST) -> None:
        self.largest = largest

    def documents(self, split: str) -> Iterator[str]:
        """The sums of one split."""
        for number in range(NUMBER):
            if HELD_OUT.get(number % 20, "train") == split:
                a, b = (derive_seed(number, side) % (self.largest + 1) for side in "ab")
                yield f"{a}+{b}={a + b}"

    def fingerprint(self) -> str:
        """A description of the rule, from which all documents follow."""
        return f"new-part {NUMBER} {self.largest} {sorted(HELD_OUT.items())}"


def open_corpus(options: DataOptions) -> Corpus:
    """The corpus that `--data.corpus new-part` names.

    Raises:
        UsageError: `--data.path` is given and is not a whole number.
    """
    if options.path is None:
        return NewPart()
    if not options.path.isdecimal():
        raise UsageError(
            f"data.path is {options.path}; for corpus new-part it must be a whole number, the "
            f"largest that is added, {LARGEST} by default"
        )
    return NewPart(int(options.path))
