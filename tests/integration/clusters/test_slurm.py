"""Sweeps on a real Slurm (``slurm_site``): slurmctld and two slurmd on loopback, or three machines
in a network, where control groups say which processes are a job's, as on most sites."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hosts import missing as no_network
from hosts import network
from slurm_site import missing, slurm_sites

from sweeps.store.store import Store
from tests.orchestrator.command_line import typed

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))
SWEEP = """
name: pair
models:
  a: {{standin: gpt2, layers: 2, width: 32, vocabulary: 400, pretrain_steps: 3}}
objectives:
  clm: {{data: {{builtin: python-docs}}}}
probe: {{data: {{builtin: python-docs}}, rows: 32, sequence_length: 16, every: {every}}}
defaults: {{steps: {steps}, batch_size: 4, sequence_length: 16, learning_rate: 1e-3,
  part_steps: {part}, checkpoint_share: 0}}
blocks:
  - name: all
    grid: {{model: [a], objective: [clm], control: [standard], seed: [0, 1]}}
"""
PROFILE = """
kind: slurm
nodes: 2
cpus_per_node: 1
gpus_per_node: {gpus}
time: "{time}"
notice_seconds: {notice}
partition: low
venv: {venv}
token_file: {folder}/token
"""


class Desk:
    """A folder with a sweep, a profile and a token, and a Slurm to submit to."""

    def __init__(self, folder, site):
        self.folder, self.site = folder, site
        (folder / "token").write_text("0123456789abcdef" * 4)
        (folder / "token").chmod(0o600)
        (folder / "venv/bin").mkdir(parents=True)
        (folder / "venv/bin/activate").write_text(f"PATH={Path(sys.executable).parent}:$PATH\n")
        self.profile()

    def profile(self, time="01:00:00", notice=90, gpus=0):
        """Write the profile."""
        given = {"time": time, "notice": notice, "gpus": gpus, "folder": self.folder}
        text = PROFILE.format(venv=self.folder / "venv", **given)
        (self.folder / "slurm.yaml").write_text(text)

    def sweep(self, steps=8, part=4, every=4, more=""):
        """Write the sweep file; nothing but a notice makes a checkpoint of its runs."""
        text = SWEEP.format(steps=steps, part=part, every=every) + more
        (self.folder / "pair.yaml").write_text(text)

    def call(self, *words, code=0):
        """Return what a command prints."""
        environment = self.site.environment
        if not self.site.login and words[0] != "run":
            done = typed(*words, folder=self.folder, **environment)
        else:
            done = subprocess.run(
                [*self.site.login, sys.executable, "-m", "orchestrator", *words],
                capture_output=True,
                text=True,
                cwd=self.folder,
                env={**os.environ, **environment},
            )
        assert done.returncode == code, f"{done}\n{self.said()}"
        return done.stdout

    def submit(self, *more):
        """Submit, and return the job's name."""
        given = ("pair.yaml", "--cluster", "./slurm.yaml", "--store", "store", "--json")
        return json.loads(self.call("submit", *given, *more))["submission_id"]

    def said(self):
        """Return what jobs have said."""
        return "".join(path.read_text() for path in sorted(self.folder.glob("*.out")))

    def runs(self):
        """Return the runs' folders once the store has them."""
        store = Store.at(str(self.folder / "store"))
        return [store.run(run.run_id) for run in store.load_sweep("pair").runs]

    def await_steps(self, attempt):
        """Return once one run is past the first part of an attempt."""
        until = time.monotonic() + 240
        while time.monotonic() < until:
            if (self.folder / "store/sweeps/pair").is_dir():
                for path in (self.folder / "store/runs").glob(
                    f"*/steps/part-*.a{attempt}-*.parquet"
                ):
                    return path
            time.sleep(0.1)
        raise AssertionError(f"attempt {attempt} does not get on: {self.said()}")

    def digest(self, store="store"):
        return self.call("digest", "pair", "--store", store)


@pytest.fixture
def slurm(tmp_path):
    """Return ``desk(**settings)``, which starts a Slurm and returns the desk before it."""
    with slurm_sites() as start:
        yield lambda **settings: Desk(tmp_path, start(**settings))


@pytest.fixture
def machines(tmp_path):
    """Return a desk before three machines, and the net that they are in."""
    if (why := no_network()) is not None:
        pytest.skip(why)
    with network(3) as net, slurm_sites() as start:
        yield Desk(tmp_path, start(net=net, track="cgroup")), net


def processes_of(desk):
    """Return the processes that name the desk's folder."""
    import psutil

    found = []
    for process in psutil.process_iter():
        try:
            if any(str(desk.folder) in word for word in process.cmdline()):
                found.append(process.cmdline())
        except psutil.Error:
            continue
    return found


def test_a_sweep_is_submitted_and_the_job_completes(slurm):
    desk = slurm(job_age=2)
    desk.sweep(more="measurements: []\n")
    name = desk.submit()
    assert desk.submit() == name  # attaches
    (desk.folder / "pair.yaml").write_text(
        (desk.folder / "pair.yaml").read_text().replace("steps: 8", "steps: 12")
    )
    edited = ("submit", "pair.yaml", "--cluster", "./slurm.yaml", "--store", "store")
    desk.call(*edited, code=2)
    # "" once Slurm has forgotten it.
    assert desk.site.await_state(name, "COMPLETED", "FAILED", "") in ("COMPLETED", "")
    assert "2 nodes" in desk.said()
    assert "ended with exit code 0" in desk.said()
    assert [folder.attempts()[-1]["cause"] for folder in desk.runs()] == ["finished"] * 2
    desk.site.await_state(name, "")
    elsewhere = desk.folder / "elsewhere"
    elsewhere.mkdir()
    desk.folder, home = elsewhere, desk.folder
    store = ("--store", str(home / "store"))
    assert "pair: 2 finished" in desk.call("logs", "pair", *store)
    desk.call("cancel", "pair", *store, code=2)
    assert processes_of(desk) == []


@pytest.mark.slow
def test_a_job_preempted_twice_goes_on_by_itself_and_loses_no_step(slurm):
    desk = slurm(grace=60)
    desk.sweep(steps=900, part=10, every=100)
    name = desk.submit()
    for attempt in (1, 2):
        desk.await_steps(attempt)
        desk.site.preempt()
        desk.site.await_state(name, "PENDING")
        desk.site.await_state("urgent", "COMPLETED")
        desk.site.await_state(name, "RUNNING")
    assert desk.site.await_state(name, "COMPLETED", "FAILED", "CANCELLED") == "COMPLETED"
    assert desk.said().count("goes back into the line") == 2
    for folder in desk.runs():
        *stopped, last = folder.attempts()
        assert last["cause"] == "finished"
        # "cancelled" where the driver's word was there before Slurm's. One that was told before its
        # first step has none to say.
        assert {one["cause"] for one in stopped} <= {"preempted", "cancelled"}
        resumed = [
            one["resumed_from"] for one in (*stopped, last) if one["resumed_from"] is not None
        ]
        # No checkpoint but that of a notice is ever made: each attempt begins where one was.
        assert resumed == sorted(resumed)
        assert resumed[0] == 0
    assert max(len(folder.attempts()) for folder in desk.runs()) == 3
    assert any(folder.attempts()[-1]["resumed_from"] > 0 for folder in desk.runs())
    desk.call("run", "pair.yaml", "--store", "alone")
    assert desk.digest() == desk.digest("alone")


@pytest.mark.slow
def test_a_job_that_is_killed_soon_after_its_notice_keeps_its_steps(slurm):
    """GraceTime=0: SIGTERM to all processes at once, and SIGKILL after KillWait."""
    desk = slurm(grace=0, kill_wait=60)
    desk.sweep(steps=900, part=10, every=100)
    name = desk.submit()
    desk.await_steps(1)
    desk.site.preempt()
    desk.site.await_state("urgent", "COMPLETED")
    assert desk.site.await_state(name, "COMPLETED", "FAILED", "CANCELLED") == "COMPLETED"
    ends = [folder.attempts() for folder in desk.runs()]
    assert any(len(ended) == 2 for ended in ends)
    # One of them had done steps when it was told.
    assert max(ended[-1]["resumed_from"] for ended in ends) > 0
    for first, *then in ends:
        assert first["cause"] in (("preempted", "cancelled") if then else ("finished",))


@pytest.mark.slow
def test_a_job_goes_on_past_its_time_limit(slurm):
    desk = slurm()
    desk.profile(time="00:10:00", notice=45)
    desk.sweep(steps=9000, part=100, every=100)  # more than a limit of 75 s lets pass when quiet
    name = desk.submit()
    desk.await_steps(1)
    number = desk.site.ask("squeue", "--noheader", f"--name={name}", "--format=%i").strip()
    told = desk.site.ask("squeue", "--noheader", f"--name={name}", "--format=%M").strip()
    minutes = (
        int(told.split(":")[-2]) + 2
    )  # at most 120 s are left, the last 45 of them with notice
    desk.site.ask("scontrol", "update", f"JobId={number}", f"TimeLimit={minutes}")
    desk.site.await_state(name, "PENDING", "COMPLETED")
    desk.site.ask("scontrol", "update", f"JobId={number}", "TimeLimit=60")
    assert desk.site.await_state(name, "COMPLETED", "FAILED", "TIMEOUT") == "COMPLETED"
    assert desk.said().count("goes back into the line") == 1
    assert [folder.attempts()[-1]["cause"] for folder in desk.runs()] == ["finished"] * 2
    assert max(folder.attempts()[-1]["resumed_from"] for folder in desk.runs()) > 0


@pytest.mark.slow
def test_a_job_is_cancelled_with_checkpoints_and_submitted_again_goes_on(slurm):
    desk = slurm()
    desk.sweep(steps=900, part=10, every=100)
    name = desk.submit()
    desk.await_steps(1)
    assert "continue from a checkpoint" in desk.call("cancel", "pair", "--store", "store")
    assert desk.site.state(name) == "CANCELLED"
    assert "143, cancelled" in desk.said()
    assert "goes back into the line" not in desk.said()
    again = desk.submit()
    assert again != name
    assert desk.site.await_state(again, "COMPLETED", "FAILED") == "COMPLETED"
    assert max(folder.attempts()[-1]["resumed_from"] for folder in desk.runs()) > 0


SEES = """
import os, ray
ray.init(address="auto", logging_level="ERROR", log_to_driver=False)
@ray.remote(num_gpus=1, num_cpus=0)
class Rank:
    def sees(self):
        return os.environ["CUDA_VISIBLE_DEVICES"]
print("gpus", sorted(node["Resources"]["GPU"] for node in ray.nodes()))
ranks = [Rank.remote() for _ in range(4)]
print("seen", sorted(ray.get([rank.sees.remote() for rank in ranks])))
"""


@pytest.mark.slow
def test_gpus_that_slurm_grants_are_what_ranks_see(slurm):
    desk = slurm(gpus=4)
    desk.profile(gpus=2)
    desk.sweep()
    driver = desk.folder / "stubs/depthsweep"
    driver.parent.mkdir()
    driver.write_text(f"#!/bin/sh\nexec {sys.executable} {desk.folder}/sees.py\n")
    driver.chmod(0o755)
    (desk.folder / "sees.py").write_text(SEES)
    with (desk.folder / "venv/bin/activate").open("a") as activate:
        activate.write(f"PATH={driver.parent}:$PATH\n")
    name = desk.submit()
    assert desk.site.await_state(name, "COMPLETED", "FAILED") == "COMPLETED", desk.said()
    assert "gpus [2.0, 2.0]" in desk.said()
    # Of four on each node two are the job's: the first of each.
    assert "seen ['0', '0', '1', '1']" in desk.said()


@pytest.mark.slow
def test_a_job_of_two_machines_preempted_once_goes_on_and_loses_no_step(machines):
    """With control groups Slurm's notice reaches what srun has started, and nothing below it."""
    desk, _ = machines
    desk.sweep(steps=900, part=10, every=100)
    name = desk.submit()
    desk.await_steps(1)
    desk.site.preempt()
    desk.site.await_state(name, "PENDING")
    assert desk.site.await_state(name, "COMPLETED", "FAILED", "CANCELLED") == "COMPLETED"
    assert desk.said().count("goes back into the line") == 1
    attempts = [one for folder in desk.runs() for one in folder.attempts()]
    assert {one["node"] for one in attempts} == {"n1", "n2"}
    assert max(one["resumed_from"] or 0 for one in attempts) > 0
    desk.call("run", "pair.yaml", "--store", "alone")
    assert desk.digest() == desk.digest("alone")


@pytest.mark.slow
def test_a_job_whose_node_is_cut_off_is_put_back_into_the_line_and_goes_on(machines):
    desk, net = machines
    desk.sweep(steps=900, part=10, every=100)
    name = desk.submit()
    desk.await_steps(1)
    net.cut(2)
    # Slurm waits for a node before it gives it up, and for both before the job starts again.
    desk.site.await_state(name, "PENDING")
    net.heal(2)
    assert desk.site.await_state(name, "COMPLETED", "FAILED", "CANCELLED") == "COMPLETED"
    assert [folder.attempts()[-1]["cause"] for folder in desk.runs()] == ["finished"] * 2
    desk.call("run", "pair.yaml", "--store", "alone")
    assert desk.digest() == desk.digest("alone")
