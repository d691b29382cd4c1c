"""What rank processes do in tests and benchmarks of scheduling, where nothing is trained."""

import json
import os
import signal
import sys
import time
from pathlib import Path

from sweeps.errors import UserError
from sweeps.files.patience import StoreUnavailable
from workers.progress import PREPARATION, PULSE, Progress
from workers.ranks.rank_process import CudaAfterFork

ERRORS = {
    "UserError": UserError,
    "StoreUnavailable": StoreUnavailable,
    "RuntimeError": RuntimeError,
    "ValueError": ValueError,
}


def sleep(job, notice):
    """Hold what the run was given for so many seconds."""
    del notice
    time.sleep(job.details["seconds"])
    yield Progress(1, 1, 0.0, "finished")


def prepare(job, notice):
    """Pack words before the first step."""
    del job, notice
    yield Progress(0, 3, None)
    with PREPARATION.of("words"), PREPARATION.counting("packing", "tokens") as more:
        more(5)
        more(7)
    yield Progress(3, 3, 0.0, "finished")


def wait_for_file(job, notice):
    """Go on until a file is there, or until told to stop."""
    step = 0
    while True:
        step += 1
        status = "finished" if os.path.exists(job.details["file"]) else notice.cause
        yield Progress(step, 1_000_000, 0.0, status)
        if status:
            return
        time.sleep(0.05)


def tell_about_it(job, notice):
    """Say in the status what the process is: its number, and what the environment told it."""
    del notice
    told = [os.environ.get(name, "") for name in job.details.get("names", ())]
    yield Progress(1, 1, None, " ".join([str(os.getpid()), *told]))


def fail(job, notice):
    """Raise the error that the job names, with its text."""
    del notice
    yield Progress(0, 1, None)
    raise ERRORS[job.details["error"]](job.details["text"])


def never_say_anything(job, notice):
    """End without a result."""
    del job, notice
    yield Progress(0, 1, None)


def refuse_a_fork(job, notice):
    """Be a run that CUDA refuses to start in a forked process."""
    del job, notice
    if "--alone" not in sys.orig_argv:
        raise CudaAfterFork("Cannot re-initialize CUDA in forked subprocess")
    yield Progress(1, 1, None, "finished")


def fail_on_a_node(job, notice):
    """Raise where the process is on the node whose raylet the job names, at once."""
    del notice
    yield Progress(0, 1, None)
    if os.environ["RAY_RAYLET_PID"] == job.details["raylet"]:
        raise RuntimeError("uncorrectable ECC error")
    yield Progress(1, 1, 0.5, "finished")


def hang(job, notice):
    """Make a step, and then wait in a function with a name for what never comes."""
    del job, notice
    yield Progress(1, 10, 0.5)
    wait_for_another_rank()


def wait_for_another_rank():
    while True:
        time.sleep(60)


def take_long_over_a_step(job, notice):
    """Be busy for so many seconds without a step, as a probe is, and say so."""
    del notice
    yield Progress(1, 2, 0.5)
    until = time.monotonic() + job.details["seconds"]
    while time.monotonic() < until:
        PULSE.beat()
        time.sleep(0.02)
    yield Progress(2, 2, 0.5, "finished")


def take_long_to_stop(job, notice):
    """Need so many seconds for what is to be done when told to stop, and say so before."""
    file = Path(job.details["file"])
    notice.seconds = 2 * job.details["seconds"]
    yield Progress(1, 2, 0.5)
    file.touch()
    while notice.cause is None:
        time.sleep(0.02)
    file.with_name("told").touch()
    time.sleep(job.details["seconds"])
    file.write_text("in time")
    yield Progress(1, 2, 0.5, notice.cause)


def write_why_it_stops(job, notice):
    """Go on until told to stop; leave the cause, and this process's number, in a file."""
    there = Path(job.details["folder"])
    (there / "pid").write_text(str(os.getpid()))
    step = 0
    while notice.cause is None:
        step += 1
        yield Progress(step, 1_000_000, 0.0)
        time.sleep(0.02)
    (there / "why").write_text(notice.cause)
    yield Progress(step, 1_000_000, 0.0, notice.cause)


def say_where_it_is(job, notice):
    """Refuse a device that this does not see, as CUDA does; leave what the environment says."""
    del notice
    said = {name: os.environ.get(name) for name in job.details["names"]}
    visible = [device for device in said["CUDA_VISIBLE_DEVICES"].split(",") if device]
    if visible and not 0 <= int(said["LOCAL_RANK"]) < len(visible):
        raise RuntimeError("CUDA error: invalid device ordinal")
    path = Path(job.details["folder"]) / f"{said['RANK']}.json"
    path.write_text(json.dumps({**said, "pid": os.getpid()}))
    yield Progress(1, 1, 0.0, "finished")


def one_fails(job, notice):
    """Be a rank of a gang of which one dies, or raises; another then fails in its collective, and
    all that are left wait."""
    rank, marker = os.environ["RANK"], Path(job.details["folder"]) / "failing"
    (marker.parent / f"pid-{rank}").write_text(str(os.getpid()))
    yield Progress(1, 10, 0.5)
    if rank == job.details["dies"]:
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if rank == job.details["raises"]:
        while len(list(marker.parent.glob("pid-*"))) < int(os.environ["WORLD_SIZE"]):
            time.sleep(0.02)
        marker.touch()
        time.sleep(0.5)
        raise ValueError("its own fault")
    while notice.cause is None:
        if marker.exists() and rank == job.details["follows"]:
            raise RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer")
        time.sleep(0.02)


def refuse_its_first_port(job, notice):
    """Find the first port of a run taken; leave the ports that it was given."""
    del notice
    said = Path(job.details["folder"]) / f"ports-{os.environ['RANK']}"
    port = os.environ["MASTER_PORT"]
    with said.open("a") as ports:
        ports.write(port + "\n")
    if len(said.read_text().split()) <= job.details["taken"]:
        raise RuntimeError(f"The server socket has failed to listen: port: {port}, EADDRINUSE")
    yield Progress(1, 1, 0.0, "finished")


def fail_at_first(job, notice):
    """Do what the job lists, one at each try: ``error: text``, ``die``, ``preempted``; then
    finish. The tries are counted in a file, whatever became of their processes."""
    del notice
    said = Path(job.details["file"])
    with said.open("a") as tries:
        tries.write("x")
    number = len(said.read_text())
    yield Progress(number, 9, 0.5)
    todo = dict(enumerate(job.details["tries"], 1)).get(number)
    if todo == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif todo == "preempted":
        yield Progress(number, 9, 0.5, "preempted")
        return
    elif todo:
        error, _, text = todo.partition(": ")
        raise ERRORS[error](text)
    yield Progress(9, 9, 0.25, "finished")
