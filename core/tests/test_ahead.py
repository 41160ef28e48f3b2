"""Results made ahead: in order, not too many, with errors in their place, and no thread left."""

import os
import signal
import threading
import time

import pytest

from platform_core.errors import UsageError
from platform_core.runtime.ahead import Ahead
from platform_core.runtime.signals import handled


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "ahead"]


def until(true):
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.fixture(autouse=True)
def none_left():
    yield
    assert not threads()


def test_results_come_in_order_and_only_so_many_wait():
    made = []
    ahead = Ahead(lambda number: made.append(number) or number**2, depth=3)
    assert not threads()
    for number in range(5, 12):
        assert ahead.take(number) == number**2
        until(lambda last=number: made[-1] == last + 3)
    time.sleep(0.05)
    assert made == list(range(5, 15))
    ahead.close()


def test_another_number_begins_anew_there():
    ahead = Ahead(str, depth=2)
    assert [ahead.take(number) for number in (0, 1, 7, 8, 3, 3)] == ["0", "1", "7", "8", "3", "3"]
    assert len(threads()) == 1
    ahead.close()
    ahead.close()
    assert ahead.take(4) == "4"
    ahead.close()


def test_an_error_is_raised_where_its_result_is_taken():
    def make(number):
        if number == 2:
            raise UsageError("row 2 has no text")
        return number

    ahead = Ahead(make, depth=5)
    assert [ahead.take(0), ahead.take(1)] == [0, 1]
    for _ in range(2):
        with pytest.raises(UsageError, match="row 2 has no text"):
            ahead.take(2)
    assert ahead.take(3) == 3
    ahead.close()


def test_a_thread_that_is_stuck_is_left_alone():
    free = threading.Event()
    ahead = Ahead(lambda number: number or free.wait(), depth=1)
    assert ahead.take(1) == 1
    ahead.close()
    stuck = Ahead(lambda number: free.wait() if number else number, depth=1)
    assert stuck.take(0) == 0
    start = time.monotonic()
    stuck.close(patience=0.05)
    assert time.monotonic() - start < 10
    assert all(thread.daemon for thread in threads())
    free.set()
    until(lambda: not threads())


def test_a_signal_interrupts_the_wait_for_a_result():
    free = threading.Event()
    ahead = Ahead(lambda number: free.wait(), depth=1)

    def interrupt(*_):
        raise KeyboardInterrupt

    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1))
    with handled(signal.SIGUSR1, by=interrupt):
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            ahead.take(0)
    free.set()
    ahead.close()
