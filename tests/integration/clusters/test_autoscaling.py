"""A sweep on a cluster that has no workers when it starts: nodes come, are lost, and go."""

import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from autoscaling_cluster import IDLE_SECONDS, autoscaling_cluster

from sweeps.store.store import Store

pytest.importorskip("deepspeed")

ROOT = Path(__file__).parents[3]
# GPUs are pretended: ranks see the number of one, find no CUDA and train on the CPU.
TYPES = {
    "two": {"max": 2, "CPU": 4, "GPU": 2, "memory": 8 << 30},
    "one": {"max": 2, "CPU": 2, "GPU": 1, "memory": 4 << 30},
}
SWEEP = """
name: grown
models:
  tiny: {{standin: opt, layers: 2, width: 32, vocabulary: 400, pretrain_steps: 3}}
objectives:
  clm: {{data: {{builtin: python-source}}}}
probe: {{data: {{builtin: python-docs}}, rows: 16, sequence_length: 16, every: 5}}
defaults: {{steps: {steps}, batch_size: 4, sequence_length: 16, learning_rate: 1e-3,
  part_steps: 5, checkpoint_share: 1}}
blocks:
"""
ALONE = """
  - name: alone
    grid: {{model: [tiny], objective: [clm], control: [standard], seed: {seeds}}}
"""
GANGS = """
  - name: gangs
    grid: {{model: [tiny], objective: [clm], control: [equal_step], seed: {seeds}}}
    set: {{processes: 2, zero_stage: 2}}
"""


class Sweep:
    """The command as a process, and which machines there were while it ran."""

    def __init__(self, cluster, folder, max_gpus, alone=(), gangs=(), steps=10):
        text = SWEEP.format(steps=steps)
        for block, seeds in ((ALONE, list(alone)), (GANGS, list(gangs))):
            text += block.format(seeds=seeds) if seeds else ""
        (folder / "grown.yaml").write_text(text)
        self.cluster, self.store = cluster, Store(folder / "store")
        self.machines = {}
        self._output = folder / "output.txt"
        command = [
            *[sys.executable, "-m", "orchestrator", "run", str(folder / "grown.yaml")],
            *["--address", cluster.address, "--store", str(folder / "store")],
            *["--max-gpus", str(max_gpus)],
        ]
        environment = {**cluster.environment(), "PYTHONPATH": str(ROOT)}
        with open(self._output, "w") as output:
            self._running = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT
            )

    def until(self, condition, seconds):
        """Wait for ``condition()``, noting machines; fail with the output when it does not come."""
        end = time.monotonic() + seconds
        while not (found := condition()):
            self.machines |= self.cluster.machines()
            assert time.monotonic() < end, self.output
            time.sleep(0.1)
        return found

    def ends(self, seconds):
        self.until(lambda: self._running.poll() is not None, seconds)
        assert self._running.returncode == 0, self.output
        return self.store.runs()

    @property
    def output(self):
        return self._output.read_text()


def rows(run, table):
    return pl.concat([pl.read_parquet(path) for path in run.parts(table)])


@pytest.mark.slow
def test_nodes_come_for_the_runs_that_wait_and_go_when_they_are_done(tmp_path):
    with autoscaling_cluster(TYPES) as cluster:
        assert cluster.machines() == {}
        sweep = Sweep(cluster, tmp_path, max_gpus=4, alone=range(4), gangs=range(2))
        runs = sweep.ends(400)
        assert len(runs) == 6
        assert all(run.done()["status"] == "finished" for run in runs)
        assert [run.attempts()[-1]["cause"] for run in runs] == ["finished"] * 6
        # A gang of two GPUs on one node: nothing else could have carried it.
        assert "two" in sweep.machines.values(), sweep.output
        sweep.until(lambda: not cluster.machines(), IDLE_SECONDS + 60)


@pytest.mark.slow
def test_no_more_gpus_than_asked_for_are_brought(tmp_path):
    # None leaves meanwhile: idle for seconds on a slow machine, one would be replaced.
    with autoscaling_cluster(TYPES, idle_seconds=600) as cluster:
        sweep = Sweep(cluster, tmp_path, max_gpus=2, alone=range(4))
        assert len(sweep.ends(400)) == 4
        # Two single GPUs, or a node of two: a third node would have been a third GPU.
        assert len(sweep.machines) <= 2, sweep.machines


@pytest.mark.slow
def test_a_node_that_is_lost_is_replaced_and_its_run_goes_on_from_its_checkpoint(tmp_path):
    with autoscaling_cluster({"two": TYPES["two"]}) as cluster:
        steps = 300
        sweep = Sweep(cluster, tmp_path, max_gpus=2, gangs=[0], steps=steps)
        saved = tmp_path / "store/runs"
        sweep.until(lambda: list(saved.glob("*/checkpoints/*/manifest.json")), 200)
        (run,) = sweep.store.runs()
        lost = cluster.machine_of(run.attempts()[0]["pid"])
        cluster.kill(lost)
        (run,) = sweep.ends(500)
        assert len(sweep.machines) >= 2, sweep.output
        attempts = run.attempts()
        # A raylet that is gone takes its workers with it, by SIGTERM where there is time.
        assert attempts[0]["cause"] in ("lost", "preempted")
        assert (attempts[-1]["cause"], attempts[-1]["resumed_from"] > 0) == ("finished", True)
        # Once in the tables.
        trained = rows(run, "steps")
        assert trained["step"].to_list() == list(range(1, steps + 1))
        profiles = rows(run, "profiles")
        assert profiles["step"].unique().sort().to_list() == list(range(5, steps + 1, 5))
        assert profiles.n_unique(["step", "layer"]) == len(profiles)
        sweep.until(lambda: not cluster.machines(), IDLE_SECONDS + 60)
