"""What a real Slurm tells a job and what becomes of the job, with a driver that only notes it.

Of Ray a process that sleeps is enough here; sweeps on it are in ``test_slurm.py``.
"""

import os
import stat
import subprocess
import sys

import pytest
from slurm_site import missing, slurm_sites

from cluster.job import Job
from cluster.profile import Slurm
from cluster.render import render

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))
NODE = """
import subprocess, sys
from orchestrator.jobs import slurm_node

def ray(*_):
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])

slurm_node._start_ray = ray
slurm_node._nodes = lambda address: 2
slurm_node._answers = lambda host, port: "" if not open({ended!r}).read() else "no"
sys.exit(slurm_node.main(sys.argv[3:]))
"""
# Its third start is done in a second; those before it go on until they are told to checkpoint.
DRIVER = """
import os, signal, sys, time
noted, ended = {noted!r}, {ended!r}
def note(what):
    with open(noted, "a") as file:
        file.write(what + "\\n")
def over(code):
    open(ended, "w").write("yes")
    sys.exit(code)
def told(*_):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(2)
    note("checkpoint")
    over(143)
open(ended, "w").close()
signal.signal(signal.SIGTERM, told)
note("starts")
time.sleep(1 if open(noted).read().count("starts") == {starts} else 600)
note("done")
over({code})
"""


class Desk:
    """A folder with a batch script whose driver notes what happens to it."""

    def __init__(self, folder, site):
        self.folder, self.site = folder, site

    def submit(self, starts=3, code=0, **settings):
        """Submit a job that is done at one of its starts, and return its name."""
        said = {"noted": str(self.folder / "noted"), "ended": str(self.folder / "ended")}
        (self.folder / "ended").write_text("")
        (self.folder / "node.py").write_text(NODE.format(**said))
        (self.folder / "driver.py").write_text(DRIVER.format(starts=starts, code=code, **said))
        bin_ = self.folder / "venv/bin"
        bin_.mkdir(parents=True)
        self._program(bin_ / "python", f'exec {sys.executable} {self.folder}/node.py "$@"')
        self._program(bin_ / "depthsweep", f"exec {sys.executable} {self.folder}/driver.py")
        (bin_ / "activate").write_text(f"PATH={bin_}:$PATH\n")
        given = {"nodes": 2, "cpus_per_node": 1, "time": "01:00:00", "notice_seconds": 60}
        profile = Slurm(kind="slurm", venv=str(bin_.parent), **{**given, **settings})
        job = Job("depthsweep-notes-1", "notes", "v1", "/x.yaml", "", "/store")
        (self.folder / "job.sbatch").write_text(render(profile, job))
        done = subprocess.run(
            ["sbatch", "--parsable", "job.sbatch"],
            cwd=self.folder,
            env={**os.environ, **self.site.environment},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return job.submission_id

    @staticmethod
    def _program(path, line):
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def noted(self):
        path = self.folder / "noted"
        return path.read_text().split() if path.exists() else []

    def await_start(self, number):
        self.site.awaits(lambda: self.noted().count("starts") >= number, self.said)

    def said(self):
        return "".join(path.read_text() for path in self.folder.glob("*.out"))


@pytest.fixture
def slurm(tmp_path):
    """Return ``desk(**settings)``, which starts a Slurm and returns the desk before it."""
    with slurm_sites() as start:
        yield lambda **settings: Desk(tmp_path, start(**settings))


def test_a_job_that_is_preempted_twice_checkpoints_and_goes_on_by_itself(slurm):
    desk = slurm(grace=60)
    name = desk.submit()
    for number in (1, 2):
        desk.await_start(number)
        desk.site.preempt()
        desk.site.await_state(name, "PENDING")
    assert desk.site.await_state(name, "COMPLETED", "FAILED", "CANCELLED") == "COMPLETED"
    assert desk.noted() == ["starts", "checkpoint", "starts", "checkpoint", "starts", "done"]
    assert desk.said().count("goes back into the line") == 2
    assert desk.said().count("ended with exit code 0") == 1


@pytest.mark.slow
def test_without_grace_the_driver_checkpoints_before_the_job_is_killed(slurm):
    desk = slurm(grace=0, kill_wait=30)
    name = desk.submit(starts=2)
    desk.await_start(1)
    desk.site.preempt()
    assert desk.site.await_state(name, "COMPLETED", "FAILED", "CANCELLED") == "COMPLETED"
    assert desk.noted() == ["starts", "checkpoint", "starts", "done"]


@pytest.mark.slow
def test_before_its_time_limit_a_job_checkpoints_and_goes_on(slurm):
    desk = slurm()
    name = desk.submit(starts=2, time="00:02:30", notice_seconds=60)
    assert desk.site.await_state(name, "COMPLETED", "FAILED", "TIMEOUT") == "COMPLETED"
    assert desk.noted() == ["starts", "checkpoint", "starts", "done"]


@pytest.mark.slow
@pytest.mark.parametrize(("code", "state"), [(1, "FAILED"), (2, "FAILED")])
def test_a_sweep_that_failed_fails_its_job_with_its_code(slurm, code, state):
    desk = slurm()
    name = desk.submit(starts=1, code=code)
    assert desk.site.await_state(name, "COMPLETED", "FAILED") == state
    assert f"ended with exit code {code}" in desk.said()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("told", "state"),
    [(["--batch", "--signal=USR2"], "CANCELLED"), ([], "CANCELLED")],
    ids=["by depthsweep", "by scancel"],
)
def test_a_job_that_is_cancelled_checkpoints_and_does_not_come_back(slurm, told, state):
    desk = slurm(kill_wait=30)
    name = desk.submit()
    desk.await_start(1)
    number = desk.site.ask("squeue", "--noheader", f"--name={name}", "--format=%i").strip()
    desk.site.ask("scancel", *told, number)
    assert desk.site.await_state(name, "CANCELLED", "FAILED", "COMPLETED") == state
    assert desk.noted() == ["starts", "checkpoint"]
    assert "goes back into the line" not in desk.said()
