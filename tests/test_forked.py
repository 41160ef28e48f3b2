"""What stands in for Python behaves as Python does."""

import os
import select
import signal
import subprocess
import sys

import forked
import pytest

CODE = "import os, sys; print(sys.argv, sys.stdin.read(), os.environ['OWN']); {}"


@pytest.mark.slow
@pytest.mark.parametrize("end", ["sys.exit(3)", "sys.exit('no')", "os.kill(os.getpid(), 9)", ""])
def test_it_ends_and_speaks_as_python_does(end, tmp_path):
    done = [
        subprocess.run(
            [python, "-c", CODE.format(f"sys.stdout.flush(); {end}"), "word"],
            input="read",
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "OWN": "value"},
        )
        for python in (forked.python(), sys.executable)
    ]
    said = [(one.returncode, one.stdout, one.stderr) for one in done]
    assert said[0] == said[1]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_reaches_the_process_that_works(number):
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    words = [forked.python(), "-c", code]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        worker = os.pidfd_open(int(process.stdout.readline()))
        process.send_signal(number)
        assert process.wait(60) == -number
    assert select.select([worker], [], [], 60)[0], "it works on"
    os.close(worker)
