"""`platform dashboard`: Aim's web interface on the repository of a directory of runs.

Aim has no authentication: the server listens on the loopback address alone, behind our own door
(`platform_aim.door`), whose key is in the address that is printed. `aim up` is not used: it forks
servers that survive it, and its indexing dies for good when it meets a run that is just closing.
Here the server is one child process, and this one keeps the index up to date.
"""

import errno
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from platform_aim.bookmarks import bookmark
from platform_aim.repository import (
    end_dead_runs,
    in_use,
    index,
    is_repository,
    open_repository,
)
from platform_aim.secret import HOST, Secret
from platform_core.cli.parser import Parser
from platform_core.errors import UsageError
from platform_core.record.sweep import find_runs
from platform_core.runtime.signals import ignored, interruptible

PORT = 43800
PORTS_TRIED = 100
START_SECONDS = 120.0
STOP_SECONDS = 10.0
INDEX_EVERY_SECONDS = 5.0
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, the usual kill, and a terminal that is closed."""


def main(argv: Sequence[str]) -> int:
    """Serves until it is interrupted or terminated.

    Raises:
        UsageError: there is no repository, no Aim or no free port, or the server does not start.
    """
    options = _parser().parse_args(argv)
    if find_spec("aim") is None:
        raise UsageError(
            "Aim is not installed; install dlm-platform with Python 3.11 or 3.12, or read the "
            "metrics.jsonl of each run"
        )
    runs = find_runs(options.runs)
    if options.rebuild:
        return _rebuild(runs)
    repository = _find_repository(runs, options.runs)
    with (
        suppress(KeyboardInterrupt),
        interruptible(*STOPPING),
        _listen(options.port) as listener,
        _in_use(repository),
    ):
        repo = _open(repository)
        ended = _end_dead_runs(repo, runs)
        _index(repo)
        secret = Secret.new(listener.getsockname()[1])
        with _server(repository, listener, secret) as server:
            _wait_until_it_answers(server, secret)
            bookmark(secret)
            taken = "" if secret.port == options.port else f" (port {options.port} is taken)"
            print(f"Aim's dashboard of {runs}: {secret.address}{taken}")
            killed = f", {len(ended)} of them killed and now ended" if ended else ""
            print(
                f"Runs: {len(repo.list_all_runs())}{killed}. Ctrl-C stops the dashboard.",
                flush=True,
            )
            _keep_indexed(repo, runs, server)
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="platform dashboard",
        description="Shows runs in Aim's web interface, on this machine only.",
    )
    parser.add_argument(
        "runs",
        nargs="?",
        type=Path,
        default=Path("runs"),
        metavar="DIR",
        help="directory of runs, a sweep or one run (default: %(default)s)",
    )
    parser.add_argument(
        "--rebuild",
        action="store_true",
        help="make the Aim repository anew from the run directories, and end",
    )
    parser.add_argument(
        "--port",
        type=int,
        default=PORT,
        metavar="N",
        help="or the next that is free (default: %(default)s)",
    )
    return parser


def _rebuild(runs: Path) -> int:
    from platform_aim.rebuild import rebuild

    start = time.monotonic()
    rebuilt = rebuild(runs)
    for path, reason in rebuilt.damaged.items():
        print(f"platform dashboard: warning: {path} is damaged: {reason}", file=sys.stderr)
    print(f"{len(rebuilt.runs)} runs in {runs / '.aim'}, {time.monotonic() - start:.0f} s")
    if rebuilt.kept:
        print(f"{rebuilt.kept} is the old one: it has runs without a directory here")
    return 0


def _find_repository(runs: Path, asked: Path) -> Path:
    repository = runs.absolute() / ".aim"
    if not is_repository(repository):
        raise UsageError(
            f"{asked} has no Aim repository; train something first with `platform run`, name the "
            "directory that your runs are in, or make one of run directories with --rebuild"
        )
    return repository


@contextmanager
def _in_use(repository: Path) -> Iterator[None]:
    try:
        with in_use(repository):
            yield
    except BlockingIOError as error:
        raise UsageError(f"{repository} is being rebuilt; wait for it to end") from error


def _open(repository: Path) -> Any:
    try:
        return open_repository(repository)
    except OSError as error:
        raise UsageError(
            f"{repository} cannot be opened ({error}); Aim needs to write to it, so copy it to a "
            "directory of yours"
        ) from error


@contextmanager
def _listen(first: int) -> Iterator[socket.socket]:
    """A socket on the first free port; bound here, so that no other process can come between."""
    if not 0 < first < 2**16:
        raise UsageError(f"there is no port {first}; choose one from 1 to 65535")
    last = min(first + PORTS_TRIED, 2**16)
    for port in range(first, last):
        with closing(socket.socket()) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((HOST, port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    continue
                raise UsageError(f"port {port} cannot be used ({error}); choose another") from error
            listener.listen()
            yield listener
            return
    raise UsageError(f"ports {first} to {last - 1} are all taken; choose another with --port")


@contextmanager
def _server(
    repository: Path, listener: socket.socket, secret: Secret
) -> Iterator[subprocess.Popen[bytes]]:
    """The web server as a child process, which is gone after the block whatever happens in it."""
    from aim.cli import utils

    environment = _environment(repository)
    upgrade: Any = utils.build_db_upgrade_command
    if subprocess.run(upgrade(), env=environment).returncode:
        raise UsageError(f"Aim cannot prepare {repository}; what it said is above")
    descriptor = listener.fileno()
    command = [sys.executable, "-P", "-m", "uvicorn", "--factory"]
    command += ["platform_aim.door:aim_behind_door"]
    command += ["--fd", str(descriptor), "--timeout-graceful-shutdown", "2"]
    command += ["--log-level", "error", "--no-access-log", "--no-proxy-headers"]
    # A session of its own: Ctrl-C reaches this process alone, which then stops the server.
    server = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.PIPE,
        pass_fds=[descriptor],
        start_new_session=True,
    )
    try:
        _tell(server, secret)
        yield server
    finally:
        _stop(server)


def _environment(repository: Path) -> dict[str, str]:
    """Of the server: Aim's settings are ours alone, and no module of the current directory stands
    in for a library's.
    """
    from aim.web.configs import AIM_UI_MOUNTED_REPO_PATH

    own = {name: value for name, value in os.environ.items() if not name.startswith("__AIM_")}
    return own | {AIM_UI_MOUNTED_REPO_PATH: str(repository), "PYTHONSAFEPATH": "1"}


def _tell(server: subprocess.Popen[bytes], secret: Secret) -> None:
    """Gives the server its secret as `aim_behind_door` reads it."""
    assert server.stdin is not None
    # One that has died already is found out by `_check_alive`.
    with suppress(BrokenPipeError), server.stdin as stream:
        stream.write(f"{secret.port}\n{secret.value}\n".encode())


def _stop(server: subprocess.Popen[bytes]) -> None:
    with ignored(*STOPPING):
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGINT)
        try:
            server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _wait_until_it_answers(server: subprocess.Popen[bytes], secret: Secret) -> None:
    deadline = time.monotonic() + START_SECONDS
    connection = http.client.HTTPConnection(HOST, secret.port, timeout=10)
    while time.monotonic() < deadline:
        _check_alive(server)
        with suppress(OSError, http.client.HTTPException), closing(connection):
            # Not /api/projects, which opens every run: seconds where there are hundreds.
            connection.request("GET", "/api/dashboards/", headers=secret.cookie)
            if connection.getresponse().status == http.HTTPStatus.OK:
                return
        time.sleep(0.1)
    raise UsageError(f"Aim's web server did not answer in {START_SECONDS:g} s")


def _check_alive(server: subprocess.Popen[bytes]) -> None:
    if server.poll() is not None:
        raise UsageError(
            f"Aim's web server stopped with exit code {server.returncode}; what it said is above"
        )


def _keep_indexed(repo: Any, runs: Path, server: subprocess.Popen[bytes]) -> None:
    """Shows new numbers of living runs, and ends killed ones, until the server stops."""
    while True:
        with suppress(subprocess.TimeoutExpired):
            server.wait(INDEX_EVERY_SECONDS)
        _check_alive(server)
        _end_dead_runs(repo, runs)
        _index(repo)


def _end_dead_runs(repo: Any, runs: Path) -> list[str]:
    from platform_aim.rebuild import complete

    ended = end_dead_runs(repo)
    complete(runs, ended)
    return ended


def _index(repo: Any) -> None:
    index(repo, repo.list_all_runs(), patience=1.0)
