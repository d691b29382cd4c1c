"""KubeRay and Slurm through stubs of their programs on PATH."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

DEPTHSWEEP = str(Path(sys.executable).with_name("depthsweep"))
SWEEP = """
name: pair
models:
  a: {standin: gpt2, layers: 2, width: 32, vocabulary: 400, pretrain_steps: 5}
objectives:
  clm: {data: {builtin: python-source}}
probe: {data: {builtin: python-docs}, rows: 32, sequence_length: 16, every: 4}
defaults: {steps: 8, batch_size: 4, sequence_length: 16, learning_rate: 1e-3}
blocks:
  - name: all
    grid: {model: [a], objective: [clm], control: [standard], seed: [0, 1]}
"""


@pytest.fixture
def site(tmp_path):
    """Return ``depthsweep(...)`` in a folder with a sweep, a store, and stubs first on PATH."""
    (tmp_path / "pair.yaml").write_text(SWEEP, encoding="utf-8")
    (tmp_path / "store").mkdir()
    stubs = tmp_path / "stubs"
    stubs.mkdir()

    class Site:
        folder = tmp_path

        @staticmethod
        def stub(name, script):
            path = stubs / name
            path.write_text(f'#!/bin/bash\necho "{name} $*" >> {tmp_path}/asked\n{script}\n')
            path.chmod(0o755)

        @staticmethod
        def asked():
            path = tmp_path / "asked"
            return path.read_text().splitlines() if path.exists() else []

        @staticmethod
        def call(*arguments, at=tmp_path):
            path = f"{stubs}:/usr/bin:/bin" if any(stubs.iterdir()) else str(stubs)
            env = {**os.environ, "PATH": path}
            return subprocess.run(
                [DEPTHSWEEP, *arguments], capture_output=True, text=True, cwd=at, env=env
            )

    return Site


def submit(site, cluster, *more):
    return site.call("submit", "pair.yaml", "--cluster", cluster, "--store", "store", *more)


@pytest.mark.parametrize(
    ("cluster", "program", "command"),
    [("kuberay", "kubectl", "kubectl get rayjobs.ray.io"), ("slurm", "squeue", "squeue --me")],
)
def test_without_the_program_the_command_is_told(site, cluster, program, command):
    shown = submit(site, cluster)
    assert shown.returncode == 2
    assert f"{program} is not on PATH here; where it is, run: {command}" in shown.stderr
    assert list((site.folder / "store").iterdir()) == []


def rayjobs(*states):
    return json.dumps(
        {
            "items": [
                {
                    "metadata": {"name": name},
                    "spec": {"metadata": {"sweep": "pair"}},
                    "status": {"jobDeploymentStatus": state, "startTime": "2026-01-01T00:00:00Z"},
                }
                for name, state in states
            ]
        }
    )


def test_kubernetes_gets_the_rayjob_once_and_again_after_its_end(site):
    site.stub("kubectl", f"[ $1 = get ] && cat {site.folder}/rayjobs.json; exit 0")
    (site.folder / "rayjobs.json").write_text(rayjobs())
    first = submit(site, "kuberay", "--json")
    assert first.returncode == 0, first.stderr
    told = json.loads(first.stdout)
    file = site.folder / f"{told['submission_id']}.yaml"
    assert f"runs: kubectl apply -f {file.name} --namespace default" in first.stderr
    applied = [line for line in site.asked() if line.startswith("kubectl apply")]
    assert applied == [f"kubectl apply -f {file.name} --namespace default"]
    sweep, job = yaml.safe_load_all(file.read_text())
    assert sweep["data"]["sweep.yaml"] == SWEEP
    assert job["metadata"]["name"] == told["submission_id"]

    (site.folder / "rayjobs.json").write_text(rayjobs((told["submission_id"], "Running")))
    again = json.loads(submit(site, "kuberay", "--json").stdout)
    assert again == {**told, "attached": True}

    (site.folder / "rayjobs.json").write_text(rayjobs((told["submission_id"], "Failed")))
    assert json.loads(submit(site, "kuberay", "--json").stdout)["attempt"] == 2

    (site.folder / "rayjobs.json").write_text(rayjobs())  # a cluster that forgot
    assert json.loads(submit(site, "kuberay", "--json").stdout)["attempt"] == 3


def test_following_ends_with_the_rayjob_also_where_no_pod_ever_comes(site):
    site.stub(
        "kubectl",
        f"[ $1 = get ] && cat {site.folder}/rayjobs.json; [ $1 = logs ] && exit 1; exit 0",
    )
    (site.folder / "rayjobs.json").write_text(rayjobs())
    name = json.loads(submit(site, "kuberay", "--json").stdout)["submission_id"]
    (site.folder / "rayjobs.json").write_text(rayjobs((name, "ValidationFailed")))
    shown = site.call("logs", "pair", "-f", "--store", "store")
    assert (shown.returncode, shown.stdout) == (0, "")


def test_a_refusal_of_kubernetes_is_one_line(site):
    site.stub("kubectl", 'echo "Unable to connect to the server" >&2; exit 1')
    shown = submit(site, "kuberay")
    assert shown.returncode == 2
    assert "failed (1): Unable to connect to the server" in shown.stderr
    assert shown.stderr.count("\n") == 1


def test_local_files_are_refused_where_they_cannot_go_along(site):
    site.stub("kubectl", "echo '{\"items\": []}'")
    (site.folder / "rows.txt").write_text("some text\n" * 50)
    text = SWEEP.replace("builtin: python-source", "file: rows.txt")
    (site.folder / "pair.yaml").write_text(text)
    shown = submit(site, "kuberay")
    assert shown.returncode == 2
    assert "local files do not go along to Kubernetes" in shown.stderr


def test_slurm_gets_the_script_attaches_logs_and_cancels(site):
    site.stub("squeue", f"cat {site.folder}/queue")
    site.stub("sbatch", "echo 41")
    site.stub("scancel", "exit 0")
    (site.folder / "queue").write_text("")
    first = submit(site, "slurm", "--json")
    assert first.returncode == 0, first.stderr
    told = json.loads(first.stdout)
    name = told["submission_id"]
    assert f"sbatch --parsable {name}.sbatch" in site.asked()
    assert "Slurm job 41" in first.stderr
    subprocess.run(["bash", "-n", f"{name}.sbatch"], cwd=site.folder, check=True)
    version = (site.folder / f"{name}.sbatch").read_text().split("--comment=")[1].split()[0]

    def queue(state, version=version):
        line = f"{name}|{state}|2026-01-01T00:00:00|41|{version}\nother|RUNNING|x|7|\n"
        (site.folder / "queue").write_text(line)

    queue("RUNNING")
    assert json.loads(submit(site, "slurm", "--json").stdout) == {**told, "attached": True}
    (site.folder / f"{name}.out").write_text("pair: 2 runs\n")
    logs = site.call("logs", "pair", "--store", "store")
    assert logs.stdout == "pair: 2 runs\n"

    (site.folder / "pair.yaml").write_text(SWEEP.replace("steps: 8", "steps: 9"))
    edited = submit(site, "slurm")
    assert edited.returncode == 2
    assert f"{name} is running another version of this sweep" in edited.stderr
    (site.folder / "pair.yaml").write_text(SWEEP)

    # A job that runs is told, and ends itself; Slurm says so for a while.
    (site.folder / "stubs/scancel").write_text(
        f"#!/bin/bash\necho scancel $* >> {site.folder}/asked\nsed -i s/RUNNING/CANCELLED/"
        f" {site.folder}/queue\n"
    )
    cancelled = site.call("cancel", "pair", "--store", "store")
    assert cancelled.returncode == 0, cancelled.stderr
    assert site.asked()[-2].startswith("scancel --batch --signal=USR2 41")
    assert f"{name} stopped" in cancelled.stdout
    assert json.loads(submit(site, "slurm", "--json").stdout)["attempt"] == 2


@pytest.mark.parametrize(
    ("last", "state"),
    [
        ("depthsweep: job 41 ended with exit code 0", "succeeded"),
        *(
            pytest.param(*rest, marks=pytest.mark.slow)
            for rest in (
                ("depthsweep: job 41 ended with exit code 1", "failed"),
                ("depthsweep: job 41 ended with exit code 143, cancelled", "stopped"),
                ("slurmstepd: error: *** STEP 41.0 CANCELLED", "failed"),
            )
        ),
    ],
)
def test_a_job_that_has_left_the_queue_is_found_by_what_is_recorded(site, last, state):
    site.stub("squeue", "exit 0")
    site.stub("sbatch", "echo 41")
    shutil.rmtree(site.folder / "store")  # the first submit makes it
    name = json.loads(submit(site, "slurm", "--json").stdout)["submission_id"]
    (site.folder / f"{name}.out").write_text(f"pair: 2 runs\n{last}\n")
    elsewhere = site.folder / "elsewhere"
    elsewhere.mkdir()
    store = ("--store", str(site.folder / "store"))
    assert last in site.call("logs", "pair", *store, at=elsewhere).stdout
    assert last in site.call("logs", "pair", "-f", *store, at=elsewhere).stdout
    refused = site.call("cancel", "pair", *store, at=elsewhere)
    assert refused.returncode == 2
    assert f"{name} has ended already ({state})" in refused.stderr
    assert json.loads(submit(site, "slurm", "--json").stdout)["attempt"] == 2
