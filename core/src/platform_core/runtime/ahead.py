"""Results made ahead of their use, by one thread, of which only so many wait.

    take(3), take(4), ...     while the caller works with one, the thread makes the next

Used for the batches of a training. An error of the thread is raised where its result is taken, and
signals stay with the main thread, which can be interrupted while it waits.
"""

from collections import deque
from collections.abc import Callable
from threading import Condition, Thread
from typing import Generic, TypeVar

T = TypeVar("T")

PATIENCE = 10.0
"""Seconds that `Ahead.close` waits for a thread that is stuck, such as in a read of the network."""


class Ahead(Generic[T]):
    """Results of a function of whole numbers, made one after another before they are asked for.

    Args:
        make: the function; only one thread at a time calls it.
        depth: how many results may wait.
    """

    def __init__(self, make: Callable[[int], T], depth: int) -> None:
        assert depth > 0, "one result has to wait"
        self._make, self._depth = make, depth
        self._worker: _Worker[T] | None = None

    def take(self, number: int) -> T:
        """The result of a number; those of the following numbers are made from then on.

        A number that does not follow the last one makes the thread begin anew there.
        """
        if self._worker is None or self._worker.next != number:
            self.close(patience=None)
            self._worker = _Worker(self._make, number, self._depth)
        return self._worker.take()

    def close(self, patience: float | None = PATIENCE) -> None:
        """End the thread and forget what waits; `take` begins another one.

        Args:
            patience: seconds after which a thread that does not end is left alone; None for ever.
        """
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.end(patience)


class _Worker(Generic[T]):
    """The thread, from one number on.

    It ends with the process, so that no read that hangs can keep the process alive.
    """

    def __init__(self, make: Callable[[int], T], first: int, depth: int) -> None:
        self.next = first
        self._make, self._depth = make, depth
        self._made: deque[T] = deque()
        self._error: BaseException | None = None
        self._ended = False
        self._changed = Condition()
        self._thread = Thread(target=self._work, args=(first,), name="ahead", daemon=True)
        self._thread.start()

    def take(self) -> T:
        """The next result, as soon as it is there."""
        with self._changed:
            self._changed.wait_for(lambda: self._made or self._error)
            if not self._made:
                assert self._error is not None, "there is a result or an error"
                raise self._error
            self.next += 1
            self._changed.notify_all()
            return self._made.popleft()

    def end(self, patience: float | None) -> None:
        """Lets the thread end after the result that it is making."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join(patience)

    def _work(self, number: int) -> None:
        while self._has_room():
            try:
                result = self._make(number)
            except BaseException as error:  # raised in the thread that takes the result
                with self._changed:
                    self._error = error
                    self._changed.notify_all()
                return
            with self._changed:
                self._made.append(result)
                self._changed.notify_all()
            number += 1

    def _has_room(self) -> bool:
        """Waits until a result is missing; False once nobody wants any."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or len(self._made) < self._depth)
            return not self._ended
