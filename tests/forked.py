"""A stand-in for Python whose processes fork from one that has imported everything.

    subprocess.run([forked.python(), "-m", "platform_core.cli", "run", ...])

It takes the words and the standard streams that Python takes, and ends as the process does that
does the work. An interpreter needs seconds of computation for its imports before it does anything;
a fork needs none. Tests of what an interpreter does while it starts use `sys.executable`.

`python tests/forked.py SOCKET PYTHON` is the process that forks. `fork_client.py` is the program
that stands in for Python: it sends its words, its folder, its environment and its open files,
waits, passes on the signals that it gets, and dies of the signal that the other died of. When it
is killed, so is the other. It becomes Python itself where an option of Python asks for another
interpreter, where a variable differs that libraries read while they are imported, and where a
process that was forked starts a program in words (`-c`), to see what an interpreter imports.

FORKED_PYTHON names another interpreter to become, and FORKED_SITE the folder of its packages.
"""

import array
import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import site
import socket
import subprocess
import sys
import tempfile
import threading
import time
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CLIENT = Path(__file__).parent / "fork_client.py"

FILES = 200
"""The most open files that a process may inherit."""

START = "import sys; from platform_core.cli import main; raise SystemExit(main())"
"""What the program `platform` does."""

IMPORTED = (
    "PYTHON",
    "HF_",
    "TRANSFORMERS_",
    "OMP_",
    "MKL_",
    "TORCHDYNAMO",
    "TORCHINDUCTOR",
    "CUDA_",
)
"""The first letters of variables that Python and libraries read while they are imported."""


TAKEN_OVER = ("PYTHON", "PYTHONPATH", "PYTHONSAFEPATH", "PYTHON_EXEC", "HF_DATASETS_CACHE")
"""Variables of these that a process takes over after it has been forked."""


@functools.cache
def _folder() -> Path:
    """Where the stand-ins lie; starts the process that forks, which ends with this one."""
    scratch = tempfile.TemporaryDirectory(prefix="forked-")
    folder = Path(scratch.name)
    mattering = {k: v for k, v in os.environ.items() if k.startswith(IMPORTED)}
    settings = {
        "python": sys.executable,
        "start": START,
        "address": str(folder / "socket"),
        "imported": IMPORTED,
        "taken_over": TAKEN_OVER,
        "served": {k: v for k, v in mattering.items() if k not in TAKEN_OVER},
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    for name in ("python", "platform"):
        (folder / name).write_text(f"#!{sys.executable} -IS\n{CLIENT.read_text()}")
        (folder / name).chmod(0o755)
    command = [sys.executable, __file__, str(folder / "socket"), str(folder / "python")]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)

    def end() -> None:
        assert server.stdin is not None
        server.stdin.close()
        server.wait(60)
        scratch.cleanup()

    atexit.register(end)
    while not (folder / "socket").exists():
        assert server.poll() is None, "the process that forks has ended"
        time.sleep(0.05)
    return folder


def python() -> str:
    """A program to start instead of `sys.executable`."""
    return str(_folder() / "python")


def programs() -> str:
    """A folder to put first on PATH, for who types `platform` or `python`."""
    return str(_folder())


class Server:
    """Forks a process for each request; ends when its standard input does.

    Args:
        address: the path of its socket.
    """

    def __init__(self, address: str) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        self.chosen = selectors.DefaultSelector()
        self.chosen.register(0, selectors.EVENT_READ, None)
        self.chosen.register(self.listener, selectors.EVENT_READ, None)
        self.lines: dict[socket.socket, int] = {}
        self.listener.bind(f"{address}.new")
        self.listener.listen(64)
        os.rename(f"{address}.new", address)

    def serve(self) -> "dict[str, Any] | None":
        """The request, in a process that has been forked for it; None at the end."""
        while True:
            for key, _ in self.chosen.select():
                if key.fileobj == 0:
                    return None
                if key.fileobj is self.listener:
                    if request := self._begin(self.listener.accept()[0]):
                        return request
                elif key.data is None:
                    self._gone(key.fileobj)  # type: ignore[arg-type]
                else:
                    self._ended(key.fileobj, *key.data)  # type: ignore[arg-type]

    def _begin(self, line: socket.socket) -> "dict[str, Any] | None":
        try:
            head, files = receive(line)
            request: dict[str, Any] = json.loads(head)
        except (OSError, ValueError):
            line.close()
            return None
        child = os.fork()
        if not child:
            self._close()
            line.close()
            place(files, request["files"])
            return request
        for file in files:
            os.close(file)
        followed = os.pidfd_open(child)
        self.lines[line] = child
        self.chosen.register(line, selectors.EVENT_READ, None)
        self.chosen.register(followed, selectors.EVENT_READ, (line, child))
        with contextlib.suppress(OSError):
            line.sendall(f"{child}\n".encode())
        return None

    def _gone(self, line: socket.socket) -> None:
        """The client was killed."""
        self.chosen.unregister(line)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.lines.pop(line), signal.SIGKILL)

    def _ended(self, followed: int, line: socket.socket, child: int) -> None:
        _, status = os.waitpid(child, 0)
        self.chosen.unregister(followed)
        os.close(followed)
        if self.lines.pop(line, None):
            self.chosen.unregister(line)
        with contextlib.suppress(OSError):
            line.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
        line.close()

    def _close(self) -> None:
        """Closes the files of the process that forks, in one that it has forked."""
        for key in list(self.chosen.get_map().values()):
            if key.fileobj == 0:
                continue
            if isinstance(key.fileobj, int):
                os.close(key.fileobj)
            else:
                key.fileobj.close()  # type: ignore[union-attr]
            if key.data is not None:
                key.data[0].close()
        self.chosen.close()


def receive(line: socket.socket) -> tuple[bytes, list[int]]:
    """A request, and the files that came with it."""
    head, ancillary, _, _ = line.recvmsg(8, socket.CMSG_LEN(FILES * 4))
    files = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            files.frombytes(content[: len(content) - len(content) % files.itemsize])
    number, said = int.from_bytes(head, "big"), b""
    while len(said) < number:
        more = line.recv(number - len(said))
        if not more:
            raise OSError("the client has gone")
        said += more
    return said, list(files)


def place(files: Sequence[int], numbers: Sequence[int]) -> None:
    """Gives open files the numbers that they have in the client."""
    import fcntl

    high = [fcntl.fcntl(file, fcntl.F_DUPFD, 1000) for file in files]
    for file in files:
        os.close(file)
    for file, number in zip(high, numbers, strict=True):
        os.dup2(file, number)
        os.close(file)
    for number in {0, 1, 2} - set(numbers):
        with contextlib.suppress(OSError):
            os.close(number)


def adopt(request: Mapping[str, Any], real: str) -> None:
    """Takes over what a process inherits from who starts it."""
    os.setsid()
    os.chdir(request["folder"])
    before = os.environ.get("PYTHONPATH", "")
    os.environ.clear()
    os.environ.update(request["variables"])
    for number in request["ignored"]:
        signal.signal(number, signal.SIG_IGN)
    if signal.SIGINT not in request["ignored"]:
        # Tests may be run where Ctrl-C is ignored, which is inherited.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.executable = real
    os.environ |= {"PYTHON_EXEC": real, "FORKED": "1"}  # torchrun starts what the first names
    old = [path for path in before.split(os.pathsep) if path]
    new = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [*new, *(path for path in sys.path if path not in old)]
    if "HF_DATASETS_CACHE" in os.environ:
        import datasets

        datasets.config.HF_DATASETS_CACHE = Path(os.environ["HF_DATASETS_CACHE"])
    if "FORKED_SITE" in os.environ:  # packages of another virtual environment
        site.addsitedir(os.environ["FORKED_SITE"])
    importlib.invalidate_caches()


def run(request: Mapping[str, Any]) -> None:
    """Does what Python does with the words of the request."""
    words, program = list(request["words"]), request["program"]
    safe = bool(program) or bool(os.environ.get("PYTHONSAFEPATH"))
    while not program and words[0] in ("-P", "-u"):
        safe = words.pop(0) == "-P" or safe
    main = types.ModuleType("__main__")
    main.__dict__.update(__builtins__=__builtins__, __spec__=None, __file__=None)
    sys.modules["__main__"] = main
    if program:
        sys.argv = [program, *words]
        exec(compile(START, program, "exec"), main.__dict__)
    elif words[0] == "-m":
        sys.argv = ["-m", *words[2:]]
        if not safe:
            sys.path.insert(0, os.getcwd())
        runpy._run_module_as_main(words[1])  # type: ignore[attr-defined]
    elif words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        if not safe:
            sys.path.insert(0, "")
        del main.__file__
        exec(compile(words[1], "<string>", "exec"), main.__dict__)
    else:
        sys.argv = words
        if not safe:
            sys.path.insert(0, os.path.dirname(os.path.realpath(words[0])))
        main.__file__ = words[0]
        exec(compile(Path(words[0]).read_bytes(), words[0], "exec"), main.__dict__)


def finish(request: Mapping[str, Any], real: str) -> None:
    """Does what Python does with a request, and ends as it does, but for taking apart modules."""
    code = 0
    try:
        adopt(request, real)
        run(request)
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException as error:
        own = error.__traceback__
        own = own and own.tb_next and own.tb_next.tb_next
        sys.excepthook(type(error), error.with_traceback(own), own)
        code = -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    with contextlib.suppress(BaseException):
        threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            code = code or 120
    if code == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code & 255)


def prepared() -> None:
    """Imports everything."""
    import fuzz

    fuzz.import_everything()
    import torch._dynamo  # noqa: F401  # which every optimizer imports

    import platform_core.data.sequences  # noqa: F401

    gc.collect()
    gc.freeze()


def main(address: str, real: str) -> None:
    """Forks a process for each request until the standard input ends."""
    prepared()
    sys.path.remove(str(Path(__file__).parent))
    request = Server(address).serve()
    if request is None:
        os._exit(0)
    finish(request, real)


if __name__ == "__main__":
    own = sys.modules["__main__"]  # kept here, since a process has another one in its place
    main(*sys.argv[1:])
