"""`platform dashboard`."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlencode

import pytest

from platform_aim.bookmarks import BOOKMARKS, bookmark
from platform_aim.dashboard import main
from platform_aim.secret import Secret
from platform_aim.tracker import AimTracker
from platform_core.errors import UsageError
from platform_core.record.directory import RunDirectory
from platform_core.record.tracker import About, Guarded

# Tests may be run where signals are ignored (nohup, a shell's background), which is inherited.
COMMAND = """
import signal, sys
from platform_aim.dashboard import main
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
sys.exit(main(sys.argv[1:]))
"""


def track(runs: Path, tag: str) -> Guarded:
    about = About("tiny", {"process": "duo"}, {"process": {"tag": tag}}, {})
    tracker = Guarded.of(AimTracker, RunDirectory(runs / "tiny"), about)
    tracker.log({"loss": 1.0}, step=1, subset="train")
    return tracker


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project") / "runs"
    track(folder, "closed").close()
    return folder


@pytest.fixture
def taken_port() -> Iterator[int]:
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def opened(line: str, taken_port: int) -> Secret:
    """What the printed address says."""
    found = re.search(
        rf"http://127\.0\.0\.1:(\d+)/\?key=(\S+) \(port {taken_port} is taken\)$", line
    )
    assert found, line
    return Secret(int(found[1]), found[2])


def get(secret: Secret, path: str) -> tuple[int, bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", secret.port, timeout=30)) as connection:
        connection.request("GET", path, headers=secret.cookie)
        response = connection.getresponse()
        return response.status, response.read()


def num_active(secret: Secret) -> int:
    return int(json.loads(get(secret, "/api/projects/activity")[1])["num_active_runs"])


def shows(secret: Secret, tag: str) -> bool:
    """Whether a query on a hyper-parameter, which reads the index, finds a run."""
    status, body = get(
        secret, "/api/runs/search/run?" + urlencode({"q": f'run.process.tag == "{tag}"'})
    )
    assert status == 200
    return tag.encode() in body


def wait_until(holds: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def child_of(parent: int) -> tuple[int, str]:
    listing = subprocess.run(["ps", "-eo", "ppid=,pid=,args="], capture_output=True, text=True)
    rows = [line.split(maxsplit=2) for line in listing.stdout.splitlines()]
    [(child, arguments)] = [(int(pid), args) for ppid, pid, args in rows if int(ppid) == parent]
    return child, arguments


def answers(port: int) -> bool:
    with closing(socket.socket()) as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_it_serves_on_the_next_free_port_and_leaves_nothing_behind(
    runs: Path, taken_port: int, stop: signal.Signals
) -> None:
    command = [sys.executable, "-c", COMMAND, str(runs), "--port", str(taken_port)]
    dashboard = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert dashboard.stdout is not None
        secret = opened(dashboard.stdout.readline(), taken_port)
        assert get(secret, "/")[0] == 200
        assert get(secret, "/api/projects")[0] == 200
        server, arguments = child_of(dashboard.pid)
        assert "uvicorn" in arguments

        assert shows(secret, "closed")
        run = track(runs, f"live-{stop}")
        wait_until(lambda: shows(secret, f"live-{stop}"), 20)
        assert num_active(secret) == 1
        run.close()
        assert num_active(secret) == 0
    finally:
        dashboard.send_signal(stop)
        _, error = dashboard.communicate(timeout=30)
    assert dashboard.returncode == 0
    assert error == ""
    assert not answers(secret.port)
    # The server leads a session, and so a process group, of its own.
    with pytest.raises(ProcessLookupError):
        os.killpg(server, 0)


KILLED = """
import os, signal, sys
from pathlib import Path
from platform_aim.tracker import AimTracker
from platform_core.record.directory import RunDirectory
from platform_core.record.tracker import About, Guarded
about = About("x", {"process": "duo"}, {"process": {"tag": "lost"}}, {})
tracker = Guarded.of(AimTracker, RunDirectory(Path(sys.argv[1]) / "x"), about)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_a_run_that_was_killed_is_shown_from_the_start(tmp_path: Path, taken_port: int) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)])
    command = [sys.executable, "-c", COMMAND, str(tmp_path), "--port", str(taken_port)]
    dashboard = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert dashboard.stdout is not None
        secret = opened(dashboard.stdout.readline(), taken_port)
        assert shows(secret, "lost")
        assert num_active(secret) == 0
        line = dashboard.stdout.readline()
        assert line == "Runs: 1, 1 of them killed and now ended. Ctrl-C stops the dashboard.\n"
        marks = json.loads(get(secret, "/api/dashboards/")[1])
        assert {mark["name"] for mark in marks} == {mark.name for mark in BOOKMARKS}
        bookmark(secret)
        assert json.loads(get(secret, "/api/dashboards/")[1]) == marks
    finally:
        dashboard.terminate()
        dashboard.communicate(timeout=30)
    assert dashboard.returncode == 0


def test_a_directory_without_a_repository_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no Aim repository; .*platform run.*--rebuild"):
        main([str(tmp_path)])


def test_a_python_without_aim_says_so(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform_aim.dashboard.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="Aim is not installed"):
        main([str(runs)])


@pytest.mark.parametrize("port", ["0", "65536"])
def test_a_port_that_does_not_exist_is_refused(runs: Path, port: str) -> None:
    with pytest.raises(UsageError, match=f"no port {port}; choose one from 1 to 65535"):
        main([str(runs), "--port", port])


def test_the_last_port_when_taken_is_an_error(runs: Path) -> None:
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 65535))
        listener.listen()
        with pytest.raises(UsageError, match="65535 are all taken"):
            main([str(runs), "--port", "65535"])


def test_importing_the_command_imports_neither_aim_nor_torch() -> None:
    code = "import sys, platform_aim.dashboard; print({'aim', 'torch'} & set(sys.modules))"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.stdout == "set()\n"
