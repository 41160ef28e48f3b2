"""Commands of `platform` in processes that fork from one that has imported everything.

    with Warm(folder) as warm:
        warm.run("eval", "RUN")         -> exit code, output and errors
        warm.start("run", ...)          -> a process to send signals to
        warm.launch(2, "run", ...)      -> two processes that train together

An interpreter needs seconds of computation for its imports before it does anything; a fork needs
none. `python tests/warm.py` is the process that is forked. It reads a request a line from its
input, as JSON, and answers each with a line.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import forked


@dataclass(frozen=True)
class Done:
    """What a command that has ended said."""

    returncode: int
    stdout: str
    stderr: str


class Warm:
    """Starts commands in one folder.

    Args:
        folder: the commands' current directory.
        environment: all of their environment.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder, self._count = folder, 0
        self._server = subprocess.Popen(
            [forked.python(), __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=dict(environment),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the server; commands that still run go on."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait(60)
        self._server.stdout.close()

    def ask(self, **request: Any) -> Any:
        """The server's answer to a request."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(f"{json.dumps(request)}\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())

    def start(self, *words: str, variables: Mapping[str, str] | None = None) -> "Started":
        """A command that goes on by itself, with more variables in its environment."""
        self._count += 1
        said = [self.folder.parent / f"{self.folder.name}-{kind}-{self._count}" for kind in "oe"]
        pid = self.ask(words=words, said=[str(path) for path in said], variables=variables or {})
        return Started(self, pid, said)

    def launch(self, processes: int, *words: str) -> list["Started"]:
        """A command in several processes that know of each other, as torchrun starts them."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        common |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
        ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]
        return [self.start(*words, variables=common | own) for own in ranks]

    def run(self, *words: str) -> Done:
        """A command that has ended."""
        started = self.start(*words)
        return started.done()


class Started:
    """A command that was started; its methods are those of `subprocess.Popen`."""

    def __init__(self, warm: Warm, pid: int, said: Sequence[Path]) -> None:
        self.warm, self.pid, self.said = warm, pid, said
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        if self.returncode is None:
            self.returncode = self.warm.ask(wait=self.pid)
        return self.returncode

    def wait(self, seconds: float = 300) -> int:
        """The exit code, once it has ended."""
        end = time.monotonic() + seconds
        while (code := self.poll()) is None:
            assert time.monotonic() < end, f"it has not ended in {seconds:.0f} s"
            time.sleep(0.01)
        return code

    def done(self) -> Done:
        """What it said, once it has ended."""
        code = self.wait()
        return Done(code, *(path.read_text() for path in self.said))

    def send_signal(self, number: int) -> None:
        """Sends a signal to the command."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Ends the command."""
        self.send_signal(signal.SIGKILL)


def serve() -> None:
    """Answers requests until the input ends."""
    import fuzz

    fuzz.import_everything()
    import torch._dynamo  # noqa: F401  # which every optimizer imports

    import platform_core.data.sequences  # noqa: F401

    for line in sys.stdin:
        request = json.loads(line)
        if "words" in request:
            child = os.fork()
            if not child:
                os.environ |= request["variables"]
                # Tests may be run where Ctrl-C is ignored, which is inherited.
                signal.signal(signal.SIGINT, signal.default_int_handler)
                fuzz.become(request["words"], Path.cwd(), *map(Path, request["said"]))
            print(child, flush=True)
            continue
        ended, status = 0, 0
        with contextlib.suppress(ChildProcessError):
            ended, status = os.waitpid(request["wait"], os.WNOHANG)
        print(json.dumps(os.waitstatus_to_exitcode(status) if ended else None), flush=True)


if __name__ == "__main__":
    serve()
