"""Slurm itself as plain processes: munged, slurmctld and two slurmd, on loopback as one machine, or
in a network of ``hosts`` as three, each with processes, a name and shared memory of its own.

From Debian's packages (``apt-get install slurmctld slurmd slurm-client munge``); as root only, for
slurmd. Nothing of it outlives the ``with``, and no setting of the machine is touched.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from hosts import Network
from s3_server import free_port

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol")
# Two partitions over the same nodes: a job of `high` preempts those of `low`.
CONFIGURATION = """
ClusterName=trial
SlurmctldHost={host}({address})
SlurmUser=root
SlurmdUser=root
SlurmctldPort={control}
AuthType=auth/munge
# A job that is put back into the line waits until its credential has expired.
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/{track}
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0,requeue_delay=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait={kill_wait}
MinJobAge={job_age}
SlurmctldTimeout=30
SlurmdTimeout=30
ReturnToService=2
SlurmdParameters=config_overrides
MailProg=/bin/true
{gres}
NodeName=n1 {first} CPUs=2 RealMemory=8000{has}
NodeName=n2 {second} CPUs=2 RealMemory=8000{has}
PartitionName=low Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP PriorityTier=1 \
PreemptMode=REQUEUE GraceTime={grace}
PartitionName=high Nodes=n1,n2 MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


# What is the first process of a machine: it has the name, /etc/hosts and shared memory of its own.
MACHINE = """
hostname "$1"
mount --bind "$2" /etc/hosts
mount -t tmpfs -o size=2g tmpfs /dev/shm
shift 2
"$@" &
wait
"""
# The host of slurmctld, beside those of n1 and n2.
CONTROL = 3


def missing():
    """Return why no Slurm can be started here, or None."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"{', '.join(absent)}: not installed (Debian: slurmctld slurmd slurm-client munge)"
    return None if os.getuid() == 0 else "slurmd wants root"


@dataclass(frozen=True)
class Site:
    """A Slurm that answers; commands find it by ``environment``."""

    folder: Path
    net: Network | None = None

    @property
    def login(self):
        """Return what a command begins with, so that it runs where jobs are submitted."""
        return _in_net(self.net, CONTROL) if self.net else []

    @property
    def environment(self):
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def ask(self, *words):
        """Return what a command of Slurm's prints."""
        done = subprocess.run(
            [*self.login, *words],
            capture_output=True,
            text=True,
            env={**os.environ, **self.environment},
        )
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def state(self, name):
        """Return the state of the newest job of a name, "" where there is none."""
        asked = ("squeue", "--states=all", "--noheader", f"--name={name}", "--format=%T")
        return (self.ask(*asked).split() or [""])[-1]

    def await_state(self, name, *states):
        """Return the state once it is one of some."""
        found = [""]

        def reached():
            found[0] = self.state(name)
            return found[0] in states

        self.awaits(reached, lambda: f"{name} is {found[0]}, not {states}")
        return found[0]

    @staticmethod
    def awaits(ready, why, seconds=300):
        """Return once something is so."""
        until = time.monotonic() + seconds
        while not ready():
            assert time.monotonic() < until, why()
            time.sleep(0.2)

    def preempt(self, seconds=1):
        """Give both nodes to a job of more priority, for some seconds; return its number."""
        given = ("--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null")
        wrapped = ("--job-name=urgent", "--parsable", f"--wrap=sleep {seconds}")
        return self.ask("sbatch", *given, *wrapped).strip()


@contextmanager
def serve_slurm(folder, grace=60, kill_wait=30, job_age=300, gpus=0, net=None, track="linuxproc"):
    """Yield a site whose files are in a folder, which must have a short path.

    ``grace`` and ``kill_wait`` are Slurm's GraceTime and KillWait in seconds, ``job_age`` how long
    it remembers a job that has ended; ``gpus`` are pretended ones of each node. With a ``net`` of
    three hosts n1, n2 and slurmctld are a machine each; ``track`` says what knows a job's
    processes, ``cgroup`` or ``linuxproc``.
    """
    (folder / "munge").mkdir(parents=True, mode=0o700)
    key = folder / "munge/key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    ports = [free_port() for _ in range(3)]
    settings = {
        "folder": folder,
        **_places(net, ports),
        "track": track,
        "grace": grace,
        "kill_wait": kill_wait,
        "job_age": job_age,
        "gres": "GresTypes=gpu" if gpus else "",
        "has": f" Gres=gpu:{gpus}" if gpus else "",
    }
    (folder / "slurm.conf").write_text(CONFIGURATION.format(**settings))
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupMountpoint=/sys/fs/cgroup\n")
    if gpus:
        devices = [folder / f"gpu{number}" for number in range(gpus)]
        for device in devices:
            os.mknod(device, 0o20666, os.makedev(1, 3))
        (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-{gpus - 1}]\n")
    site = Site(folder, net)
    munge = folder / "munge"
    commands = [
        [
            *("munged", "--foreground", "--force", "--num-threads=2", f"--key-file={key}"),
            *(f"--socket={munge}/socket", f"--pid-file={munge}/pid"),
            *(f"--log-file={munge}/log", f"--seed-file={munge}/seed"),
        ],
        [*_machine(net, CONTROL, "ctl", folder), "slurmctld", "-D", "-c"],
        [*_machine(net, 1, "n1", folder), "slurmd", "-D", "-N", "n1"],
        [*_machine(net, 2, "n2", folder), "slurmd", "-D", "-N", "n2"],
    ]
    started = []
    try:
        for number, command in enumerate(commands):
            with open(folder / f"said-{number}", "wb") as said:
                started.append(
                    subprocess.Popen(
                        command,
                        stdout=said,
                        stderr=said,
                        env={**os.environ, **site.environment},
                        start_new_session=True,
                    )
                )
            if number == 0:
                _await(lambda: (munge / "socket").exists(), folder)
        _await(lambda: _idle(site) == 2, folder)
        yield site
    finally:
        _end_jobs(site)
        for number, process in reversed(list(enumerate(started))):
            # A machine is switched off, with all that is on it.
            process.send_signal(signal.SIGKILL if net and number else signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for node in ("n1", "n2"):
            _forget(node)


def _forget(node):
    """Remove the control groups that a slurmd leaves behind; those with a process stay."""
    for root in Path("/sys/fs/cgroup").glob(f"*/slurm_{node}"):
        for folder in sorted((root, *root.rglob("*/")), key=lambda each: -len(each.parts)):
            with suppress(OSError):
                folder.rmdir()


def _places(net, ports):
    """Return where slurmctld and the nodes are, as slurm.conf says it."""
    if net is None:
        host = socket.gethostname().split(".")[0]
        here = f"NodeHostname={host} NodeAddr=127.0.0.1"
        nodes = {"first": f"{here} Port={ports[1]}", "second": f"{here} Port={ports[2]}"}
        return {"host": host, "address": "127.0.0.1", "control": ports[0], **nodes}
    nodes = {name: f"NodeAddr={net.address(host)}" for host, name in ((1, "first"), (2, "second"))}
    return {"host": "ctl", "address": net.address(CONTROL), "control": ports[0], **nodes}


def _in_net(net, host):
    return ["nsenter", f"--net={net.namespace(host)}"]


def _machine(net, host, name, folder):
    """Return what a command begins with that a machine is there for; all of it ends with it."""
    if net is None:
        return []
    names = folder / "hosts"
    known = {1: "n1", 2: "n2", CONTROL: "ctl"}
    lines = [f"{net.address(number)} {called}" for number, called in known.items()]
    names.write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))
    own = ("--uts", "--ipc", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
    return [
        *(*_in_net(net, host), "unshare", *own),
        *("bash", "-c", MACHINE, "machine", name, str(names)),
    ]


def _idle(site):
    said = subprocess.run(
        [*site.login, "sinfo", "--noheader", "--partition=low", "--states=idle", "--format=%D"],
        capture_output=True,
        text=True,
        env={**os.environ, **site.environment},
    ).stdout
    return int(said.strip() or 0)


def _end_jobs(site):
    """Cancel what is left in the queue, and wait until it is gone."""
    environment = {**os.environ, **site.environment}
    cancel = [*site.login, "scancel", "--user=root"]
    subprocess.run([*cancel, "--signal=KILL"], env=environment)
    subprocess.run(cancel, env=environment)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        asked = [*site.login, "squeue", "--noheader", "--format=%i"]
        if not subprocess.run(asked, capture_output=True, env=environment).stdout.strip():
            return
        time.sleep(0.2)


def _await(ready, folder):
    until = time.monotonic() + 60
    while not ready():
        said = "".join(path.read_text() for path in sorted(folder.glob("said-*")))
        assert time.monotonic() < until, f"Slurm does not start: {said[-2000:]}"
        time.sleep(0.1)


@contextmanager
def slurm_sites():
    """Yield ``start(**settings)``, which starts a Slurm in a new folder and returns its site."""
    with ExitStack() as until_done:

        def start(**settings):
            # Paths of sockets are short.
            folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
            until_done.callback(shutil.rmtree, folder)
            return until_done.enter_context(serve_slurm(folder, **settings))

        yield start
