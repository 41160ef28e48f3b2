"""Words, spaces and other signs as tokens."""

import re
from collections.abc import Sequence
from typing import final

from platform_core.data.tokenizer.pieces import PieceTokenizer

PIECE = re.compile(r"[^\W_]+(?:['’][^\W_]+)*|\s+|.", re.DOTALL)
"""A word, with what follows its apostrophes; white space; one other sign."""


@final
class Words(PieceTokenizer):
    """One token for each different word, stretch of white space or other sign of the corpus."""

    kind = "words"

    @classmethod
    def cut(cls, text: str) -> Sequence[str]:
        """The pieces in their order."""
        return PIECE.findall(text)


def words_of(text: str) -> list[str]:
    """The words alone, in their order."""
    return [piece for piece in PIECE.findall(text) if piece[0].isalnum()]
