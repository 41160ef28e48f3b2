"""Run a sweep on a real SLURM of one node, with a preempted trial and one that runs out of time.

    python experiments/slurm/try.py [FOLDER]        (apt-get install slurm-wlm; as root; 5 minutes)

Starts slurmctld and slurmd in FOLDER (by default a new one), runs the sweep.yaml beside this
script, requeues a running job as a preemption does, warns another that its time is up (SIGUSR2),
and prints the state of each trial. A requeued job waits two minutes, by SLURM's design.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from platform_core.record.sweep import SweepDirectory

FILE = Path(__file__).with_name("sweep.yaml")
PATIENCE_SECONDS = 1200.0
CONFIG = """\
ClusterName=local
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort=16817
SlurmdPort=16818
AuthType=auth/none
CredType=cred/none
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
KillWait=30
NodeName=localhost NodeAddr=127.0.0.1 NodeHostname={host} CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=debug Nodes=localhost Default=YES MaxTime=INFINITE State=UP
"""


def main() -> int:
    """Run the sweep; return 0 if all trials ended, the two disturbed ones in a second attempt."""
    if shutil.which("slurmctld") is None:
        print("slurmctld is not installed: apt-get install --no-install-recommends slurm-wlm")
        return 2
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="slurm-"))
    folder = folder.absolute()
    with slurm(folder):
        out = SweepDirectory(folder / "sweep")
        words = ["sweep", str(FILE.relative_to(Path.cwd())), "--output", str(out.path)]
        process = subprocess.Popen(
            [sys.executable, "-m", "platform_core.cli", *words, "--launcher=slurm", "--jobs=2"]
        )
        preempted, timed = "process=duo,seed=1", "process=duo,seed=2"
        for name, act in ((preempted, ["scontrol", "requeue"]), (timed, ["scancel", "-sUSR2"])):
            wait(lambda name=name: bool(out.run(name).steps()), process)
            job = json.loads((out.slurm / "jobs.json").read_text())[name]
            print(f"at step {out.run(name).steps()[-1]} of {name}: {' '.join(act)} {job}")
            subprocess.run([*act, job], check=True)
            wait(lambda name=name: out.state(name).status == "interrupted", process)
            print(f"{name} {out.state(name).message}; " + queue())
        code = process.wait(PATIENCE_SECONDS)
        for trial in json.loads(out.index.read_text())["trials"]:
            state = out.state(trial["name"])
            print(
                f"{trial['name']}: {state.status}, {state.attempts} attempts, "
                f"{len(state.evaluations)} measurements"
            )
        again = all(out.state(name).attempts == 2 for name in (preempted, timed))
        print(f"exit {code}; the two disturbed trials took a second attempt: {again}")
        return code or int(not again)


@contextmanager
def slurm(folder: Path) -> Iterator[None]:
    """A SLURM cluster of this machine only, on the loopback address."""
    for name in ("state", "spool", "log"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    config = folder / "slurm.conf"
    host = socket.gethostname().partition(".")[0]
    config.write_text(CONFIG.format(folder=folder, host=host))
    os.environ["SLURM_CONF"] = str(config)
    subprocess.run(["slurmctld", "-f", config], check=True)
    subprocess.run(["slurmd", "-N", "localhost", "-f", config], check=True)
    try:
        deadline = time.monotonic() + 60
        while not said(["sinfo", "-h", "-o", "%T"]).startswith("idle"):
            assert time.monotonic() < deadline, f"the node does not come up; see {folder}/log"
            time.sleep(0.5)
        print(f"{said(['sinfo', '--version'])} with one node in {folder}")
        yield
    finally:
        subprocess.run(["scontrol", "shutdown"])


def wait(happened: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    """Wait until `happened()`; fail if the sweep ends before, or after PATIENCE_SECONDS."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert process.poll() is None, "the sweep ended too early"
        assert time.monotonic() < deadline, "the awaited state was not reached in time"
        time.sleep(0.2)


def queue() -> str:
    """The jobs, their states and reasons, as squeue lists them."""
    return "squeue: " + ", ".join(said(["squeue", "-h", "-r", "-o", "%i %t %r"]).splitlines())


def said(words: list[str]) -> str:
    """Standard output of a command."""
    return subprocess.run(words, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
