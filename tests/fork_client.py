"""The program that stands in for Python, and for `platform`: `forked` says what it does.

`forked` copies it into a folder as `python` and as `platform`, beside `settings.json`. It imports
little, since it starts each time.
"""

import array
import contextlib
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Mapping
from typing import Any

PR_SET_PDEATHSIG, EXIT_INTERRUPTED = 1, 75

TRIAL = "import sys; from platform_core.cli import main; sys.exit(main(sys.argv[1:]))"

FOLDER, NAME = os.path.split(__file__)


def settings() -> dict[str, Any]:
    """What `forked` has written: the interpreter, the socket, and variables."""
    with open(os.path.join(FOLDER, "settings.json")) as stream:
        content: dict[str, Any] = json.load(stream)
    return content


def become_python(known: Mapping[str, Any]) -> None:
    """Becomes the interpreter."""
    start = ["-c", known["start"]] if NAME == "platform" else []
    python = os.environ.get("FORKED_PYTHON", known["python"])
    os.execv(python, [python, *start, *sys.argv[1:]])


def needs_python(known: Mapping[str, Any]) -> bool:
    """Whether a process that is forked would not be the one that is asked for."""
    words = [word for word in sys.argv[1:] if word not in ("-P", "-u")][:2]
    other = not words or words[0].startswith("-") and words[0] not in ("-m", "-c")
    if other and NAME != "platform":
        return True
    if words[:1] == ["-c"] and "FORKED" in os.environ:
        return True  # the platform itself looks at what an interpreter imports
    mattering = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(tuple(known["imported"])) and name not in known["taken_over"]
    }
    return bool(mattering != known["served"])


def followed(words: list[str]) -> list[str]:
    """The words of Python that do what `platform_sweep.child` does once it follows its parent.

    This process follows the parent in its place, and passes on the signal that it then gets.
    """
    words = [word for word in words if word != "-P"]
    if words[:2] != ["-m", "platform_sweep.child"]:
        return sys.argv[1:]
    import ctypes

    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(words[2]):
        sys.exit(EXIT_INTERRUPTED)
    return ["-P", "-c", TRIAL, *words[3:]]


def open_files() -> list[int]:
    """The numbers of all open files."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            os.fstat(int(name))
        except OSError:
            continue  # the listing itself
        found.append(int(name))
    return found


class Command:
    """The process that does the work; signals are passed on to it."""

    def __init__(self, address: str) -> None:
        self.pid, self.early = 0, list[int]()
        words = followed(sys.argv[1:])
        passed = set(range(1, 32)) - {
            signal.SIGKILL,
            signal.SIGSTOP,
            signal.SIGCHLD,
            signal.SIGPIPE,
        }
        ignored = [number for number in passed if signal.getsignal(number) == signal.SIG_IGN]
        for number in passed - set(ignored):
            signal.signal(number, self.pass_on)
        files = open_files()
        request = {
            "program": NAME == "platform" and __file__,
            "words": words,
            "folder": os.getcwd(),
            "variables": dict(os.environ),
            "files": files,
            "ignored": ignored,
        }
        self.line = socket.socket(socket.AF_UNIX)
        self.line.connect(address)
        said, kind = json.dumps(request).encode(), (socket.SOL_SOCKET, socket.SCM_RIGHTS)
        self.line.sendmsg([len(said).to_bytes(8, "big")], [(*kind, array.array("i", files))])
        self.line.sendall(said)
        self.answers = self.line.makefile()
        self.pid = int(self.answers.readline())
        for number in self.early:
            self.pass_on(number)

    def pass_on(self, number: int, _: object = None) -> None:
        """Sends a signal to the process, once it is there."""
        if not self.pid:
            self.early.append(number)
            return
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.kill(self.pid, number)

    def end(self) -> None:
        """Ends as the process has ended."""
        code = int(self.answers.readline() or 1)
        if code < 0:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            if -code != signal.SIGKILL:
                signal.signal(-code, signal.SIG_DFL)
            os.kill(os.getpid(), -code)
        os._exit(code)


def main() -> None:
    """Has the work done."""
    known = settings()
    if needs_python(known):
        become_python(known)
    Command(known["address"]).end()


if __name__ == "__main__":
    main()
