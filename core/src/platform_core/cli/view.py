"""A text in the terminal while it is denoised, for `platform sample --watch` and `platform chat`.

On a terminal the text stays in its place, and what the last step drew is in colour. Elsewhere, with
NO_COLOR, and on terminals that cannot go back (TERM=dumb), each call of the network is a line. All
of it goes to standard error, so that standard output has the texts alone.
"""

import sys
import time
from argparse import ArgumentParser
from types import TracebackType
from typing import TYPE_CHECKING, Self, final

from platform_core.errors import UsageError
from platform_core.evaluation.frames import BREAK, Frame, Frames, Kind, rows

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from platform_core.data.tokenizer import Tokenizer

FPS = 15.0
"""Frames in a second, unless the user says another number."""

STYLES: dict[Kind, str] = {"mask": "dim", "remasked": "red", "new": "black on yellow", "old": ""}
"""How the terminal shows what a position holds."""

BAR = 20
"""Columns of the bar that shows the signal level."""


def add_speed(parser: ArgumentParser) -> None:
    """Adds the option that says how fast a text is shown."""
    parser.add_argument(
        "--fps",
        type=float,
        default=FPS,
        metavar="N",
        help="at most so many steps in a second are shown, by --watch and by animations; 0.5 shows "
        "one in two seconds",
    )


def require_speed(fps: float) -> float:
    """The frames in a second, if somebody could watch that many.

    Raises:
        UsageError: nobody could.
    """
    if not 0.01 <= fps <= 1000:
        raise UsageError(f"--fps is {fps:g}; it must be at least 0.01 and at most 1000")
    return fps


def can_move() -> bool:
    """Whether standard error is a terminal that can show a text in its place, in colour."""
    return _moves(_console())


def _console() -> "Console":
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def _moves(console: "Console") -> bool:
    return console.is_terminal and not console.is_dumb_terminal and not console.no_color


@final
class View:
    """Shows one text; a context, which leaves the terminal as it was.

    Args:
        tokenizer: tokenizer of the text.
        length: tokens in the text; calls of the network on parts of it are not shown.
        fps: frames in a second at most.
        keep: leave the last frame on the terminal.
    """

    def __init__(self, tokenizer: "Tokenizer", length: int, *, fps: float, keep: bool) -> None:
        self.waited = 0.0
        """Seconds in which nothing was done between two calls, so that one can follow."""
        self._frames, self._length = Frames(tokenizer), length
        self._fps, self._keep, self._due = fps, keep, 0.0
        self._console = _console()
        self._live: Live | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.transient |= kind is not None
            self._live.stop()

    def see(self, tokens: list[int], alpha: float) -> None:
        """Shows the tokens before a call of the network, once the frame before was seen."""
        if len(tokens) != self._length:
            return
        frame = self._frames.next(tokens, alpha)
        if self._console.is_terminal:
            self._wait()
        if not _moves(self._console):
            print(line(frame), file=sys.stderr, flush=True)
            return
        if self._live is None:
            self._live = self._started()
        self._live.update(drawing(frame, self._console.width, self._console.height), refresh=True)

    def end(self, tokens: list[int]) -> None:
        """Shows the text at its end, for as long as any frame."""
        self.see(tokens, 1.0)
        if self._live is not None:
            self._wait()

    def _wait(self) -> None:
        seconds = max(0.0, self._due - time.monotonic())
        time.sleep(seconds)
        self.waited += seconds
        self._due = time.monotonic() + 1 / self._fps

    def _started(self) -> "Live":
        from rich.live import Live

        live = Live(
            console=self._console,
            auto_refresh=False,
            transient=not self._keep,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
        )
        live.start()
        return live


def line(frame: Frame) -> str:
    """A frame as one line of plain text."""
    text = "".join(frame.texts).replace("\n", BREAK)
    return f"{frame.number:4} {frame.alpha:4.0%}  {text}"


def drawing(frame: Frame, width: int, height: int) -> "Text":
    """A frame for a terminal of so many columns and lines; a text that is longer is cut off."""
    from rich.text import Text

    text, room, lines = Text(end=""), max(1, height - 3), rows(frame, width)
    for pieces in lines[:room]:
        for words, kind in pieces:
            text.append(words, STYLES[kind])
        text.append("\n")
    if len(lines) > room:
        text.append(f"... and {len(lines) - room} lines more\n", "dim")
    full = round(BAR * frame.alpha)
    changed = sum(kind in ("new", "remasked") for kind in frame.kinds)
    text.append(f"step {frame.number:<4} ")
    text.append("━" * full, "yellow")
    text.append("━" * (BAR - full), "dim")
    text.append(f" {frame.alpha:4.0%} signal, {changed} changed")
    return text
