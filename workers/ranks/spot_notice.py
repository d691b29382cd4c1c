"""A cloud's word that it takes this machine back: asked for all the time, and passed on to ranks.

    python -m workers.ranks.spot_notice aws|gcp

Amazon says so two minutes before, Google half a minute, in the metadata of the machine and nowhere
else: no process is signalled until the end. Runs beside Ray on every node that `ray up` starts,
once a machine.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from workers.ranks.leaving import leave

POLL_SECONDS = 2.0
ANSWER_SECONDS = 2.0
# How long what is left of a machine may take; it is ended sooner.
LAST_SECONDS = 600.0


def amazon() -> bool:
    """Return whether EC2 takes this machine back (IMDSv2: a token, then the question).

    Raises OSError where nothing answers.
    """
    endpoint = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or "http://169.254.169.254"
    endpoint = endpoint.rstrip("/")
    lasts = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    token = _ask(f"{endpoint}/latest/api/token", lasts, "PUT")
    told = {"X-aws-ec2-metadata-token": token or ""}
    return _ask(f"{endpoint}/latest/meta-data/spot/instance-action", told) is not None


def google() -> bool:
    """Return whether Compute Engine takes this machine back; raises OSError as ``amazon``."""
    host = os.environ.get("GCE_METADATA_HOST") or "metadata.google.internal"
    url = f"http://{host}/computeMetadata/v1/instance/preempted"
    return _ask(url, {"Metadata-Flavor": "Google"}) == "TRUE"


CLOUDS: dict[str, Callable[[], bool]] = {"aws": amazon, "gcp": google}


def _ask(url: str, headers: dict[str, str], method: str = "GET") -> str | None:
    """Return what a URL answers, None where it says that there is nothing."""
    request = urllib.request.Request(url, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
            return str(answer.read().decode().strip())
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise


def watch(taken_back: Callable[[], bool]) -> None:
    """Return once this machine is taken back; what does not answer is asked again."""
    while True:
        with contextlib.suppress(OSError, ValueError):
            if taken_back():
                return
        time.sleep(POLL_SECONDS)


def main(cloud: str) -> int:
    """Watch, tell the ranks, and those that are started until the end; 0 at once where another
    process of this user does already."""
    path = Path(tempfile.gettempdir()) / f"depthsweep-spot-notice-{os.getuid()}"
    with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 0
        watch(CLOUDS[cloud])
        print("this machine is taken back: its runs checkpoint", flush=True)
        until = time.monotonic() + LAST_SECONDS
        while time.monotonic() < until:
            leave(until - time.monotonic())
            time.sleep(POLL_SECONDS)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
