"""Locks: one holder at a time, and free when the last process that holds it has ended."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from platform_core.record.locks import is_taken, locked, take


def test_a_lock_is_taken_until_it_is_let_go(tmp_path):
    path = tmp_path / "new" / "lock"
    with take(path):
        assert is_taken(path)
        with pytest.raises(BlockingIOError):
            take(path)
        start = time.monotonic()
        with pytest.raises(BlockingIOError), locked(path, patience=0.2):
            pass
        assert time.monotonic() - start >= 0.2
    assert not is_taken(path)
    with pytest.raises(KeyError), locked(path):
        raise KeyError
    assert not is_taken(path)


def test_shared_holders_keep_out_who_wants_it_alone(tmp_path):
    path = tmp_path / "lock"
    with locked(path, shared=True), locked(path, shared=True):
        assert is_taken(path)
        with pytest.raises(BlockingIOError):
            take(path)
    with locked(path), pytest.raises(BlockingIOError):
        take(path, shared=True)


def test_asking_makes_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        is_taken(tmp_path / "lock")
    assert not list(tmp_path.iterdir())


def test_who_waits_gets_it_when_it_is_free_also_in_threads(tmp_path):
    path, order = tmp_path / "lock", []

    def wait() -> None:
        with locked(path):
            order.append("second")

    thread = threading.Thread(target=wait)
    with locked(path):
        thread.start()
        time.sleep(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_who_waits_for_a_file_that_is_replaced_meanwhile_locks_the_new_one(tmp_path):
    path = tmp_path / "lock"
    old = take(path)
    threading.Timer(0.2, lambda: (path.unlink(), old.close())).start()
    with locked(path, patience=10):
        assert is_taken(path)


HOLDER = """
import subprocess, sys, time
from pathlib import Path
from platform_core.record.locks import take
lock = take(Path(sys.argv[1]))
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"],
                         pass_fds=[lock.fileno()], stdout=subprocess.DEVNULL)
print(child.pid, flush=True)
time.sleep(60)
"""


def test_a_lock_is_free_once_the_last_child_of_a_killed_holder_has_ended(tmp_path):
    path = tmp_path / "lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    with holder.stdout:
        child = int(holder.stdout.readline())
    assert is_taken(path)
    holder.kill()
    holder.wait()
    assert is_taken(path)
    os.kill(child, signal.SIGKILL)
    with locked(path, patience=10):
        pass


def test_a_process_that_is_not_handed_the_lock_does_not_hold_it(tmp_path):
    path = tmp_path / "lock"
    with take(path):
        other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    assert not is_taken(path)
    other.kill()
    other.wait()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        take(Path(tmp_path / "file" / "lock"))
