"""Files and folders: whole or not there, whatever happens while they are written."""

import json
import os
import resource
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from platform_core.errors import UsageError
from platform_core.record import files
from platform_core.record.files import (
    WriteError,
    scratch_folder,
    whole_folder,
    write_bytes,
    write_json,
    write_text,
)


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file grows beyond 1000 bytes, as on a disk that is full then."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_is_written_in_place_of_an_earlier_one_and_its_folder_is_made(tmp_path):
    path = tmp_path / "new" / "file.txt"
    for text in ("first", "second, with \u00fc"):
        write_text(path, text)
        assert path.read_text(encoding="utf-8") == text
    write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": None}
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.usefixtures("small_disk")
def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(UsageError, match=r"^cannot write \S+/file\.txt \(File too large\)$"):
        write_text(path, "x" * 2000)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_a_file_is_named(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match=r"cannot write \S+/folder \("):
        write_text(tmp_path / "folder", "x")
    with pytest.raises(WriteError, match=r"cannot write \S+/file/below \("):
        write_text(tmp_path / "file" / "below", "x")


KILLED = """
import os, signal, sys
from pathlib import Path
from platform_core.record import files

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

Path.replace = Path.rename = die
here = Path(sys.argv[1])
if sys.argv[2] == "file":
    files.write_text(here / "new", "half")
with files.whole_folder(here / "new", replace=True) as folder:
    (folder / "half").write_text("half")
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_process_left_is_no_file_and_goes_with_the_next_attempt(tmp_path, kind):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), kind])
    assert done.returncode == -9
    assert [path.name for path in tmp_path.iterdir()] == [".new.partial"]
    if kind == "file":
        write_text(tmp_path / "new", "whole")
    else:
        with whole_folder(tmp_path / "new") as folder:
            assert not list(folder.iterdir())
            (folder / "whole").touch()
        assert [path.name for path in (tmp_path / "new").iterdir()] == ["whole"]
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_what_is_interrupted_before_the_rename_leaves_nothing(tmp_path, monkeypatch, error):
    def fail(path: Path) -> None:
        raise error

    write_text(tmp_path / "file", "old")
    monkeypatch.setattr(files, "_flush", fail)
    with pytest.raises(error):
        write_text(tmp_path / "file", "new")
    with pytest.raises(error), whole_folder(tmp_path / "folder") as folder:
        (folder / "half").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_everything_is_on_the_disk_before_its_name_is_and_then_the_name(tmp_path, monkeypatch):
    flushed = []
    flush = files._flush
    monkeypatch.setattr(files, "_flush", lambda path: (flushed.append(path), flush(path)))
    write_text(tmp_path / "file", "x")
    assert flushed == [tmp_path / ".file.partial", tmp_path]
    flushed.clear()
    with whole_folder(tmp_path / "folder") as folder:
        (folder / "below").mkdir()
        (folder / "below" / "file").touch()
    beside = tmp_path / ".folder.partial"
    assert sorted(flushed[:3]) == [beside, beside / "below", beside / "below" / "file"]
    assert flushed[3:] == [tmp_path]


def test_devices_and_pipes_are_written_to_and_stay(tmp_path):
    before = os.stat(os.devnull)
    write_text(Path(os.devnull), "x")
    assert os.path.samestat(before, os.stat(os.devnull))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_text(pipe, "through the pipe")
    reader.join()
    assert read == ["through the pipe"]
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


def test_a_pipe_whose_reader_has_gone_is_no_full_disk():
    read, write = os.pipe()
    os.close(read)
    with pytest.raises(BrokenPipeError):
        write_bytes(Path(f"/dev/fd/{write}"), b"x" * 100_000)
    os.close(write)


def test_links_are_followed(tmp_path):
    (tmp_path / "there").mkdir()
    for name in ("file", "folder"):
        (tmp_path / name).symlink_to(tmp_path / "there" / name)
    for text in ("new", "again"):
        write_text(tmp_path / "file", text)
        with whole_folder(tmp_path / "folder", replace=True) as folder:
            (folder / text).touch()
        assert (tmp_path / "there" / "file").read_text() == text
        assert [path.name for path in (tmp_path / "there" / "folder").iterdir()] == [text]
    assert (tmp_path / "file").is_symlink()
    assert (tmp_path / "folder").is_symlink()


@pytest.mark.usefixtures("umask")
def test_modes_follow_the_umask_also_of_files_that_a_library_keeps_private(tmp_path):
    write_text(tmp_path / "file", "x")
    with whole_folder(tmp_path / "folder") as folder:
        (folder / "private").touch(0o600)
        (folder / "program").touch(0o700)
    assert mode(tmp_path / "file") == 0o640
    assert mode(tmp_path / "folder") == 0o750
    assert mode(tmp_path / "folder" / "private") == 0o640
    assert mode(tmp_path / "folder" / "program") == 0o740


def test_a_folder_that_is_there_stays_unless_it_may_be_replaced(tmp_path):
    path = tmp_path / "folder"
    path.mkdir()
    with whole_folder(path) as folder:
        (folder / "first").touch()
    with (
        pytest.raises(UsageError, match=r"cannot write \S+/folder \(.*not empty"),
        whole_folder(path) as folder,
    ):
        (folder / "second").touch()
    assert [file.name for file in path.iterdir()] == ["first"]
    with whole_folder(path, replace=True) as folder:
        (folder / "second").touch()
    assert [file.name for file in path.iterdir()] == ["second"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("small_disk")
def test_a_full_disk_leaves_nothing_of_a_folder_and_the_old_one(tmp_path):
    path = tmp_path / "folder"
    path.mkdir()
    with (
        pytest.raises(UsageError, match=r"^cannot write \S+/folder \(.*File too large"),
        whole_folder(path, replace=True) as folder,
    ):
        (folder / "large").write_bytes(bytes(2000))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("small_disk")
def test_a_file_that_has_no_room_in_a_folder_is_named_as_it_would_be_afterwards(tmp_path):
    path = tmp_path / "folder"
    said = rf"^cannot write {path}/inner/large \(File too large\)$"
    with pytest.raises(WriteError, match=said), whole_folder(path) as folder:
        write_text(folder / "inner" / "large", "x" * 2000)
    assert not list(tmp_path.iterdir())


def test_a_scratch_folder_is_empty_at_first_and_gone_at_the_end(tmp_path):
    path = tmp_path / "scratch"
    path.mkdir()
    (path / "left").touch()
    with scratch_folder(path) as folder:
        assert not list(folder.iterdir())
        (folder / "new").touch()
    assert not list(tmp_path.iterdir())
