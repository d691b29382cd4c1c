"""A driver that is killed while it tells a tracker: ``python told_and_killed.py STORE SWEEP KIND``.

It imports everything once, then forks a teller for each kill and one that may finish.
"""

import importlib
import os
import random
import signal
import sys
import time

from orchestrator.tracking.feed import export
from orchestrator.tracking.kinds import make_trackers
from sweeps.store.store import Store

ROOMS = {"wandb": "wandb_runs", "mlflow": "mlflow_runs", "tensorboard": "tensorboard_files"}
KILLS = 4
LATEST = 1.0


def tell(location, name, kind):
    """Fork a process that exports; return its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        store = Store.at(location)
        sweep = store.load_sweep(name)
        for tracker in make_trackers(sweep.track.only([kind]), sweep, store):
            export(tracker, sweep, store)
        code = 0
    finally:
        os._exit(code)


def main():
    location, name, kind = sys.argv[1:]
    moments = random.Random(kind)
    importlib.import_module(f"orchestrator.tracking.{ROOMS[kind]}")
    for _ in range(KILLS):
        teller = tell(location, name, kind)
        time.sleep(moments.uniform(0.1, LATEST))
        os.kill(teller, signal.SIGKILL)
        os.waitpid(teller, 0)
    _, status = os.waitpid(tell(location, name, kind), 0)
    sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
