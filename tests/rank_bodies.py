"""What rank processes do in tests and benchmarks of scheduling, where nothing is trained."""

import os
import sys
import time

from workers.progress import Progress
from workers.ranks.rank_process import CudaAfterFork


def sleep(job, notice):
    """Hold what the run was given for so many seconds."""
    del notice
    time.sleep(job.details["seconds"])
    yield Progress(1, 1, 0.0, "finished")


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
    """Raise what the job says."""
    del notice
    yield Progress(0, 1, None)
    raise job.details["error"]


def never_say_anything(job, notice):
    """End without a result."""
    del job, notice
    yield Progress(0, 1, None)


def refuse_a_fork(job, notice):
    """Be a run that CUDA refuses to start in a forked process."""
    del job, notice
    if os.path.basename(sys.orig_argv[-2]) != "--alone":
        raise CudaAfterFork("Cannot re-initialize CUDA in forked subprocess")
    yield Progress(1, 1, None, "finished")


def fail_on_a_node(job, notice):
    """Raise where the process is on the node whose raylet the job names, at once."""
    del notice
    yield Progress(0, 1, None)
    if os.environ["RAY_RAYLET_PID"] == job.details["raylet"]:
        raise RuntimeError("uncorrectable ECC error")
    yield Progress(1, 1, 0.5, "finished")
