"""A trajectory as frames of text: what each position reads as, and what has just changed.

    token ids, call after call --Frames--> Frame --rows--> lines of a given width

`platform sample --watch` and `platform chat` show frames in a terminal; `animation` writes them as
a page or a picture.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from typing import Literal, NamedTuple, final

from platform_core.data.tokenizer.base import LEFT_OVER, Tokenizer
from platform_core.evaluation.trajectory import Trajectory

Kind = Literal["mask", "remasked", "new", "old"]
"""What a position holds: a mask; a mask that was a token before the last step; a token that the
last step drew; another token."""

BROKEN = "\N{REPLACEMENT CHARACTER}"
"""Stands for bytes that are no character, and for characters that a terminal would obey."""

BREAK = "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}"
"""Stands for the end of a line, where every token has to keep its place."""

LONGEST_CHARACTER = 4
"""Bytes of the longest character of UTF-8, and so tokens that it is made of at most."""


class Frame(NamedTuple):
    """A text at one call of the network."""

    number: int
    """Steps so far: 0 for the first frame, which is noise alone."""
    alpha: float
    """Signal level, from 0 (noise) to 1 (text)."""
    texts: tuple[str, ...]
    """What each position adds to the text; nothing for padding, and for the first bytes of a
    character."""
    kinds: tuple[Kind, ...]
    """What each position holds."""


@final
class Frames:
    """Turns the token ids of one text, call after call, into frames.

    Args:
        tokenizer: tokenizer of the text; ids that it lacks are masks.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._vocab_size = tokenizer.vocab_size
        self._decode = lru_cache(maxsize=2**16)(tokenizer.decode)
        self._before: Sequence[int] | None = None
        self._number = -1

    @classmethod
    def of(cls, way: Trajectory, tokenizer: Tokenizer) -> Iterator[Frame]:
        """The frames of a whole trajectory."""
        frames = cls(tokenizer)
        return (frames.next(*row) for row in zip(way.tokens, way.alphas, strict=True))

    def next(self, tokens: Sequence[int], alpha: float) -> Frame:
        """The next frame, of token ids `[length]` at a signal level."""
        before = tokens if self._before is None else self._before
        pairs = zip(before, tokens, strict=True)
        kinds = tuple(self._kind(was, token) for was, token in pairs)
        self._before, self._number = tokens, self._number + 1
        return Frame(self._number, alpha, self._texts(tokens), kinds)

    def _kind(self, was: int, token: int) -> Kind:
        if token >= self._vocab_size:
            return "mask" if was >= self._vocab_size else "remasked"
        return "old" if was == token else "new"

    def _texts(self, tokens: Sequence[int]) -> tuple[str, ...]:
        texts: list[str] = []
        for mask, alike in groupby(tokens, lambda token: token >= self._vocab_size):
            run = tuple(alike)
            texts += [LEFT_OVER] * len(run) if mask else self._spelt(run)
        return tuple(map(visible, texts))

    def _spelt(self, tokens: tuple[int, ...]) -> list[str]:
        """What each of some tokens without masks adds to the text of the tokens before it.

        A token is read together with the one before it, because some tokenizers write a blank
        between two words only. The first bytes of a character wait for its last ones.
        """
        texts = [""] * len(tokens)
        begin = end = 0
        for place in range(len(tokens)):
            known, whole = self._decode(tokens[begin:end]), self._decode(tokens[begin : place + 1])
            waits = whole.endswith(BROKEN) and place + 1 - end < LONGEST_CHARACTER
            if waits and place + 1 < len(tokens):
                continue
            texts[place] = whole[len(known) :]
            begin, end = end, place + 1
        return texts


def visible(text: str) -> str:
    """The text without characters that a terminal or a browser would obey; ends of lines stay."""
    return "".join(
        letter if letter.isprintable() or letter == "\n" else " " if letter.isspace() else BROKEN
        for letter in text
    )


def rows(frame: Frame, width: int) -> list[list[tuple[str, Kind]]]:
    """The text in lines of at most `width` columns, as pieces of one kind each.

    A line is cut wherever it is full, and an end of a line is a sign (`BREAK`), so that a token
    that changes moves no other one if both are of the same length.
    """
    lines: list[list[tuple[str, Kind]]] = [[]]
    column = 0
    for text, kind in zip(frame.texts, frame.kinds, strict=True):
        for letter in text.replace("\n", BREAK):
            columns = _columns(letter)
            if column + columns > width:
                lines.append([])
                column = 0
            lines[-1].append((letter, kind))
            column += columns
    return [
        [("".join(letter for letter, _ in run), kind) for kind, run in groupby(line, _second)]
        for line in lines
    ]


def _second(piece: tuple[str, Kind]) -> Kind:
    return piece[1]


def _columns(letter: str) -> int:
    """Columns of a terminal that a character takes."""
    if unicodedata.combining(letter):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1
