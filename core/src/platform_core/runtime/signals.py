"""Signals that ask to stop: noticed within a block, so that a run can be saved before it ends.

A signal that the parent process ignores (nohup does, and a shell for background jobs) stays
ignored, and after the block the earlier handlers are restored. Only the main thread handles
signals.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from platform_core.errors import EXIT_CTRL_C, EXIT_INTERRUPTED

Handler = Callable[[int, FrameType | None], Any]


@contextmanager
def handled(*numbers: int, by: Handler) -> Iterator[None]:
    """Handle signals by a function within the block, except for signals that are ignored.

    After the block the earlier handlers are back, where the block has not set one of its own.

    Args:
        numbers: numbers of the signals.
        by: function that is called with the signal's number and the frame that it interrupts.
    """
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, by)
        yield
    finally:
        for number, handler in before.items():
            # None was not set by Python, which cannot restore it.
            if handler is not None and signal.getsignal(number) in (by, signal.SIG_IGN):
                signal.signal(number, handler)


@contextmanager
def interruptible(*numbers: int) -> Iterator[None]:
    """Signals raise KeyboardInterrupt within the block, as Ctrl-C does."""
    with handled(*numbers, by=_interrupt):
        yield


@contextmanager
def ignored(*numbers: int) -> Iterator[None]:
    """Signals do nothing within the block."""
    with handled(*numbers, by=lambda *_: None):
        yield


@contextmanager
def blocked(*numbers: int) -> Iterator[None]:
    """Signals wait until after the block, and never reach processes that are started within it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Stopped(KeyboardInterrupt):
    """A signal that asks the process to leave, raised wherever it was.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.name = signal.Signals(number).name


@contextmanager
def stoppable(*numbers: int) -> Iterator[None]:
    """Signals raise `Stopped` within the block, in this process alone.

    A process that it forks, such as a worker that its pool ends with SIGTERM, ends as usual. Code
    in C may swallow `Stopped`, as torch does while it imports numpy; an error that follows from the
    module left half imported then becomes `Stopped` again.
    """
    own = os.getpid()
    came: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        if os.getpid() != own:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        came.append(number)
        raise Stopped(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    try:
        with handled(*numbers, by=stop):
            yield
    except Exception as error:
        if came:
            raise Stopped(came[0]) from error
        raise


class Interruption:
    """Records, within `with`, signals that ask the process to save its work and end.

    Args:
        numbers: numbers of the signals; SIGTERM, SIGINT and SIGUSR1 by default.
        second_stops: whether a second Ctrl-C raises KeyboardInterrupt, and so stops at once.
    """

    def __init__(
        self,
        *numbers: int,
        second_stops: bool = True,
    ) -> None:
        self.numbers = numbers or (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
        self.second_stops = second_stops
        self.noticed: list[int] = []
        self._block = handled(*self.numbers, by=self._notice)

    def __enter__(self) -> "Interruption":
        self._block.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._block.__exit__(*raised)

    @property
    def signal(self) -> int | None:
        """The first signal that came, or None."""
        return self.noticed[0] if self.noticed else None

    @property
    def exit_code(self) -> int:
        """Exit code for the process: `EXIT_CTRL_C` after Ctrl-C, else `EXIT_INTERRUPTED`."""
        return EXIT_CTRL_C if self.signal == signal.SIGINT else EXIT_INTERRUPTED

    def _notice(self, number: int, _: FrameType | None) -> None:
        again = number == signal.SIGINT and number in self.noticed
        self.noticed.append(number)
        if again and self.second_stops:
            raise KeyboardInterrupt


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt
