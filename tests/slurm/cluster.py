"""A SLURM of its own on this machine: munge, a controller, and nodes with devices that are none.

Everything lies in one folder, listens on the loopback, and needs no database: jobs are asked for
with squeue. `python tests/slurm/cluster.py FOLDER` starts one and holds it until Ctrl-C.
"""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

PROGRAMS = ("munged", "slurmctld", "slurmd", "squeue", "srun", "sbatch", "scancel", "scontrol")
PACKAGES = "munge slurmctld slurmd slurm-client"
WRAPPED = ("squeue", "srun", "sbatch", "scancel", "scontrol", "sinfo", "sacct")
NODES = ("n1", "n2", "n3", "n4", "n5", "n6", "n7")  # what for, the partitions below say
GPUS = 4
CONFIG = """\
ClusterName=ci
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={base}/run/munge.socket,cred_expire=6
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
ReturnToService=2
SlurmctldPidFile={base}/run/slurmctld.pid
SlurmdPidFile={base}/run/slurmd.%n.pid
SlurmdSpoolDir={base}/spool/%n
StateSaveLocation={base}/state
SlurmctldLogFile={base}/log/slurmctld.log
SlurmdLogFile={base}/log/slurmd.%n.log
SlurmctldDebug=info
SlurmdDebug=info
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,sched_min_interval=0,bf_interval=2,default_queue_depth=1000
MinJobAge=900
KillWait=10
OverTimeLimit=0
SlurmdTimeout=10
SlurmctldTimeout=10
MessageTimeout=10
InactiveLimit=0
Waittime=0
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=5
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=DEFAULT CPUs=16 Boards=1 SocketsPerBoard=1 CoresPerSocket=16 ThreadsPerCore=1
{nodes}
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
PartitionName=fragile Nodes=n1,n3 MaxTime=INFINITE State=UP
PartitionName=scavenge Nodes=n4 MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE
PartitionName=spare Nodes=n5 MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE
PartitionName=pair Nodes=n6,n7 MaxTime=INFINITE State=UP
PartitionName=urgent Nodes=n4,n5 MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""
NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} RealMemory=200000 "
    "State=UNKNOWN Gres=gpu:a100:{gpus} Weight={weight}"
)


def missing() -> str:
    """What a machine lacks for a cluster, in one line; empty if it can have one."""
    absent = [name for name in PROGRAMS if _program(name) is None]
    if absent:
        return f"no {', '.join(absent)}: as root, apt-get install {PACKAGES}"
    if os.geteuid():
        return "starting a SLURM of one's own takes root"
    with tempfile.TemporaryDirectory() as folder:
        try:
            _make_device(Path(folder) / "device")
        except OSError as error:
            return f"devices cannot be made here (mknod: {error.strerror})"
    return ""


def _make_device(path: Path) -> None:
    """A null device in the place of a GPU: SLURM wants a character device."""
    os.mknod(path, 0o666 | 0o020000, os.makedev(1, 3))


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin")


class Cluster:
    """The daemons in a folder, and the commands of this cluster on a PATH of their own."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.port, *ports = free_ports(1 + len(NODES))
        self.ports = dict(zip(NODES, ports, strict=True))
        self.host = socket.gethostname().split(".")[0]
        self.daemons: dict[str, subprocess.Popen] = {}

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which SLURM's commands speak to this cluster."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SNAKEMAKE"))}
        return kept | {"PATH": f"{self.base}/bin:{kept.get('PATH', '')}:/usr/sbin"}

    def start(self) -> None:
        """Start all daemons; returns when all nodes are idle."""
        self._write()
        munge = f"{self.base}/run/munge"
        self._start(
            "munged",
            *("munged", "--foreground", "--force", f"--key-file={self.base}/munge.key"),
            *(f"--socket={munge}.socket", f"--pid-file={munge}.pid"),
            *(f"--log-file={self.base}/log/munged.log", f"--seed-file={munge}.seed"),
        )
        wait_for(lambda: Path(f"{munge}.socket").exists(), 20, "munged")
        self._start("slurmctld", "slurmctld", "-D")
        for name in NODES:
            self.start_node(name)
        self.wait_until_idle()

    def start_node(self, name: str) -> None:
        """Start the daemon of a node."""
        self._start(name, "slurmd", "-D", "-N", name)

    def kill_node(self, name: str) -> None:
        """Let a node vanish with whatever runs there, which has no time to tell anybody."""
        jobs = self.run("squeue", "--noheader", f"--nodelist={name}", "--format=%i").stdout.split()
        daemon = self.daemons.pop(name)
        daemon.kill()
        daemon.wait()
        stewards = tuple(f"slurmstepd: [{job}" for job in jobs)  # these would report the rest dead
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if jobs and " ".join(process.cmdline()).startswith(stewards):
                    process.kill()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get("SLURMD_NODENAME") == name:
                    process.kill()

    def wait_until_idle(self, seconds: float = 60) -> None:
        """Wait until all nodes take jobs."""
        wait_for(lambda: self.states() == {"idle"}, seconds, "the nodes")

    def states(self) -> set[str]:
        """States of the nodes."""
        done = self.run("timeout", "5", "sinfo", "--noheader", "--Node", "--format=%T")
        return set(done.stdout.split()) if done.returncode == 0 else set()

    def run(self, *command: str, **keywords) -> subprocess.CompletedProcess:
        """Run a command with this cluster's SLURM."""
        options = {"env": self.environment, "capture_output": True, "text": True, "timeout": 120}
        return subprocess.run(command, **options | keywords)

    def jobs(self, states: str = "all") -> list[tuple[str, str, str]]:
        """Number, state and comment of jobs, the newest last."""
        options = ["--noheader", f"--states={states}", "--sort=i", "--format=%i|%T|%k"]
        lines = self.run("squeue", *options).stdout.splitlines()
        return [tuple(line.split("|", 2)) for line in lines]

    def stop(self) -> None:
        """Cancel all jobs and end all daemons."""
        if "slurmctld" in self.daemons:
            self.run("scancel", "--user=root")
            deadline = time.monotonic() + 20
            while self.jobs("running,completing") and time.monotonic() < deadline:
                time.sleep(0.5)
        for process in psutil.process_iter():  # controllers of failed tests, and what they started
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get("PATH", "").find(f"{self.base}/bin") >= 0:
                    process.kill()
        for daemon in reversed(self.daemons.values()):
            daemon.terminate()
        for daemon in self.daemons.values():
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self.daemons.clear()

    def _write(self) -> None:
        for name in ("run", "log", "state", "dev", "bin", *(f"spool/{node}" for node in NODES)):
            (self.base / name).mkdir(parents=True, exist_ok=True)
        about = {"base": self.base, "host": self.host, "port": self.port}
        weight = dict.fromkeys(NODES, 2) | {"n3": 1}  # jobs go there first
        nodes = "\n".join(
            NODE.format(name=name, host=self.host, port=port, gpus=GPUS, weight=weight[name])
            for name, port in self.ports.items()
        )
        (self.base / "slurm.conf").write_text(CONFIG.format(nodes=nodes, **about))
        devices = f"{self.base}/dev/nvidia[0-{GPUS - 1}]"
        lines = [f"NodeName={name} Name=gpu Type=a100 File={devices}" for name in NODES]
        (self.base / "gres.conf").write_text("\n".join(["AutoDetect=off", *lines, ""]))
        for number in range(GPUS):
            device = self.base / "dev" / f"nvidia{number}"
            if not device.exists():
                _make_device(device)
        key = self.base / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        self._wrap()

    def _wrap(self) -> None:
        """Commands that know this cluster: jobs of the workflow lose the variables that name it."""
        for name in WRAPPED:
            program = _program(name)
            if program is None or Path(program).parent == self.base / "bin":
                continue
            path = self.base / "bin" / name
            path.write_text(f'#!/bin/sh\nSLURM_CONF={self.base}/slurm.conf exec {program} "$@"\n')
            path.chmod(0o755)

    def _start(self, name: str, program: str, *options: str) -> None:
        log = (self.base / "log" / f"{name}.out").open("ab")
        self.daemons[name] = subprocess.Popen(
            [_program(program), *options],
            env=os.environ | {"SLURM_CONF": str(self.base / "slurm.conf")},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def wait_for(ready: Callable[[], object], seconds: float, what: str) -> None:
    """Wait until `ready()` is true; TimeoutError that names `what`."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not ready after {seconds:g} s")
        time.sleep(0.2)


if __name__ == "__main__":
    if problem := missing():
        sys.exit(problem)
    started = time.monotonic()
    cluster = Cluster(Path(sys.argv[1]).resolve())
    for number in (signal.SIGTERM, signal.SIGINT):  # which shells let background jobs ignore
        signal.signal(number, signal.default_int_handler)
    cluster.start()
    print(f"up in {time.monotonic() - started:.1f} s; PATH={cluster.base}/bin:$PATH", flush=True)
    try:
        signal.pause()
    except KeyboardInterrupt:
        cluster.stop()
