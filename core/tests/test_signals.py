"""Signals that ask to stop: noticed, ignored where the parent ignores them, handled as before."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from platform_core.runtime.signals import (
    Interruption,
    Stopped,
    blocked,
    handled,
    ignored,
    interruptible,
    stoppable,
)

ALL = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.fixture(autouse=True)
def usual() -> Iterator[dict[int, object]]:
    """Handlers as at a terminal, also where the tests run with signals ignored."""
    before = {number: signal.getsignal(number) for number in ALL}
    for number in ALL:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield {number: signal.getsignal(number) for number in ALL}
    for number, handler in before.items():
        signal.signal(number, handler)


def now() -> dict[int, object]:
    return {number: signal.getsignal(number) for number in ALL}


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)]
)
def test_a_signal_is_noticed_and_the_block_goes_on(usual, number, code):
    with Interruption() as interruption:
        assert interruption.signal is None
        send(number)
        assert interruption.signal == number
        assert interruption.exit_code == code
    assert now() == usual


def test_a_second_ctrl_c_stops_at_once_and_other_signals_do_not(usual):
    with Interruption() as interruption:
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            send(number)
        assert interruption.exit_code == 75, "the first signal is why it stops"
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
    assert now() == usual


def test_a_second_ctrl_c_is_only_noticed_where_that_is_wanted():
    with Interruption(signal.SIGINT, second_stops=False) as interruption:
        send(signal.SIGINT)
        send(signal.SIGINT)
    assert interruption.noticed == [signal.SIGINT] * 2


def test_what_the_parent_ignores_stays_ignored_and_is_not_noticed():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with Interruption() as interruption, interruptible(signal.SIGTERM):
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
        send(signal.SIGTERM)
    assert interruption.signal is None
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


HUNG_UP = """
import os, signal
from platform_core.runtime.signals import interruptible
with interruptible(signal.SIGHUP):
    os.kill(os.getpid(), signal.SIGHUP)
print("went on")
"""


def test_nohup_keeps_a_process_from_the_end_of_its_terminal():
    command = ["nohup", sys.executable, "-c", HUNG_UP]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "went on\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_a_block_as_ctrl_c_does(usual, number):
    with pytest.raises(KeyboardInterrupt), interruptible(*ALL):
        send(number)
    assert now() == usual


def test_signals_do_nothing_while_they_are_ignored(usual):
    with interruptible(*ALL), ignored(*ALL):
        for number in ALL:
            send(number)
    assert now() == usual


def test_blocked_signals_come_afterwards_and_what_was_blocked_before_stays_so():
    came: list[int] = []
    with handled(signal.SIGUSR1, by=lambda number, _: came.append(number)):
        with blocked(signal.SIGUSR1):
            with blocked(signal.SIGUSR1):
                # To this thread alone: others of the test's process may take what is sent to all.
                signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
            assert not came
        assert came == [signal.SIGUSR1]


def test_handlers_are_put_back_after_an_error(usual):
    with pytest.raises(KeyError), handled(*ALL, by=lambda *_: None):
        raise KeyError
    assert now() == usual


AT_THE_END = """
import atexit, os, signal, sys


class Late:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)


late = Late()  # removed while Python takes its modules apart
from platform_core.cli import main

if {early}:
    atexit.register(os.kill, os.getpid(), signal.SIGTERM)
sys.argv = ["platform", *{words}]
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("words", "early", "code"),
    [(["--version"], True, 0), (["--version"], False, 0), (["--nothing"], False, 2)],
)
def test_a_signal_that_comes_while_the_process_ends_changes_nothing(usual, words, early, code):
    source = AT_THE_END.format(early=early, words=words)
    done = subprocess.run([sys.executable, "-c", source], timeout=60, check=False)
    assert done.returncode == code


def test_a_handler_that_a_block_sets_stays(usual):
    def last(*_: object) -> None:
        pass

    with handled(signal.SIGTERM, by=lambda *_: None):
        signal.signal(signal.SIGTERM, last)
    assert signal.getsignal(signal.SIGTERM) is last


def test_an_error_after_a_swallowed_signal_is_the_signal(usual):
    """As where a library's code in C clears the exception of an import that was broken off."""

    def broken_off() -> None:
        with contextlib.suppress(KeyboardInterrupt):
            send(signal.SIGTERM)
        raise RecursionError("of a module that is half imported")

    with pytest.raises(Stopped) as stopped, stoppable(signal.SIGTERM):
        broken_off()
    assert stopped.value.name == "SIGTERM"
    with pytest.raises(RecursionError), stoppable(signal.SIGTERM):
        raise RecursionError("of its own")
