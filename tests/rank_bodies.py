"""What rank processes do in tests and benchmarks of scheduling, where nothing is trained."""

import os
import time

from workers.progress import Progress


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
