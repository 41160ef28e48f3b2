"""The corpus: all sums of two numbers up to a largest one, divided by chance into splits."""

import re
from collections.abc import Iterator
from typing import final

from platform_core.composition.options import DataOptions
from platform_core.data.corpus import Corpus
from platform_core.draws import derive_seed
from platform_core.errors import UsageError

LARGEST = 99
MOST = 999
"""A million sums, which take seconds."""
HELD_OUT = {9: "validation", 19: "test"}

_SUM = re.compile(r"(\d+)\+(\d+)=(\d+)")


@final
class Sums(Corpus):
    """Every sum of two numbers from 0 to the largest is one document: 7+12=19.

    Args:
        largest: number that is added; from 9 on, each split has some sums.
    """

    packing = "padded"

    def __init__(self, largest: int = LARGEST) -> None:
        self.largest = largest

    def documents(self, split: str) -> Iterator[str]:
        """The sums of one split."""
        numbers = range(self.largest + 1)
        for a in numbers:
            for b in numbers:
                if split_of(a, b) == split:
                    yield f"{a}+{b}={a + b}"

    def fingerprint(self) -> str:
        """Of the rule, from which the documents follow."""
        return f"sums {self.largest} {sorted(HELD_OUT.items())}"


def split_of(a: int, b: int) -> str:
    """The split that has a + b: by chance, and the same for any largest number."""
    return HELD_OUT.get(derive_seed("sums", a, b) % 20, "train")


def read_sum(text: str) -> tuple[int, int, int] | None:
    """The three numbers of a text that is one sum, whether it adds up or not."""
    found = _SUM.fullmatch(text)
    if found is None:
        return None
    a, b, result = map(int, found.groups())
    return a, b, result


def open_sums(options: DataOptions) -> Sums:
    """The corpus that `--data.corpus sums` names.

    Raises:
        UsageError: the path is no number that can be used, or there is a column.
    """
    if options.column is not None:
        raise UsageError("corpus sums has no --data.column; leave it out")
    path = options.path or str(LARGEST)
    if not path.isdecimal() or not 9 <= int(path) <= MOST:
        raise UsageError(
            f"data.path is {path}; for corpus sums it is the largest number that is added, from 9 "
            f"to {MOST} ({LARGEST} by default)"
        )
    return Sums(int(path))
