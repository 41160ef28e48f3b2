"""Start of a trial's processes, which save themselves and end when their parent has died.

python -m platform_sweep.child PARENT_PID VERB ...
"""

import ctypes
import os
import signal
import sys

from platform_core.cli import main
from platform_core.errors import EXIT_INTERRUPTED

PR_SET_PDEATHSIG = 1


def follow(parent: int) -> None:
    """Ask Linux for SIGTERM at the parent's death; elsewhere a trial outlives a killed sweep.

    SLURM warns every process of a job that its time is up (SIGUSR2); only the sweep's own process
    handles the warning.
    """
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    follow(int(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
