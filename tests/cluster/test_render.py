"""Rendered files against the schemas of those who read them; scripts are run."""

import json
import os
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml

from cluster.job import Job
from cluster.library import PROFILES, profile_names, read_profile
from cluster.profile import KINDS
from cluster.render import EXAMPLE, local_commands, render

CRD = json.loads(Path(__file__).with_name("rayjob_v1_fields.json").read_text(encoding="utf-8"))
JOB = Job(
    "depthsweep-paper-0123abcd-1", "paper", "v1", "/shared/my sweep.yaml", "name: p\n", "s3://b/x"
)


def autoscaler_schema():
    import ray

    return json.loads((Path(ray.__file__).parent / "autoscaler/ray-schema.json").read_text())


def documents(name, job=JOB):
    return list(yaml.safe_load_all(render(read_profile(name), job)))


def test_there_is_a_profile_of_every_kind():
    assert {read_profile(name).kind for name in profile_names()} == set(KINDS)


@pytest.mark.parametrize("name", profile_names())
def test_a_profile_says_how_it_is_applied_and_fits_a_screen(name):
    text = render(read_profile(name), JOB)
    assert "apply:" in text[:300]
    source = (PROFILES / f"{name}.yaml").read_text(encoding="utf-8")
    assert max(map(len, source.splitlines())) <= 100
    assert source.startswith("# ")


@pytest.mark.parametrize("name", ["aws", "gcp", "static"])
def test_the_autoscaler_accepts_the_file(name):
    from ray.autoscaler._private.util import prepare_config, validate_config

    (config,) = documents(name)
    jsonschema.validate(config, autoscaler_schema())
    # What `ray up` does first: fill in defaults, then its own checks.
    validate_config(prepare_config(config))


@pytest.mark.parametrize("name", ["aws", "gcp"])
def test_clouds_have_gpus_for_every_model_size_and_spot_workers(name):
    (config,) = documents(name)
    types = config["available_node_types"]
    gpus = {kind: types[kind]["resources"].get("GPU", 0) for kind in types}
    assert gpus == {"head": 0, "small": 1, "medium": 1, "large": 8}
    assert types["head"]["resources"]["CPU"] == 0
    assert types["head"]["resources"]["GPU"] == 0
    assert {types[kind]["min_workers"] for kind in types} == {0}
    spot = [kind for kind in types if "spot" in json.dumps(types[kind]["node_config"]).lower()]
    assert spot == ["small", "medium"]
    profile = read_profile(name)
    assert config["max_workers"] == sum(worker.max for worker in profile.workers)
    for worker in profile.workers:
        assert types[worker.name]["max_workers"] == worker.max
        # An autoscaler brings no node for what its type does not say.
        assert types[worker.name]["resources"]["memory"] == worker.memory_bytes
        assert types[worker.name]["labels"]["depthsweep/gpu-gib"] == str(worker.gpu_gib)
        assert types[worker.name]["labels"]["ray.io/accelerator-type"]


@pytest.mark.parametrize("name", ["aws", "gcp", "static"])
def test_every_node_asks_for_the_token_and_gets_it_as_a_file(name):
    (config,) = documents(name)
    assert config["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert "RAY_AUTH_MODE=token" in config[commands][-1]
        assert "RAY_AUTH_TOKEN_PATH=~/.ray/auth_token" in config[commands][-1]


def test_the_rayjob_has_the_published_fields_only():
    sweep, job = documents("kuberay")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    jsonschema.validate(job["spec"], CRD)
    assert sweep["data"] == {"sweep.yaml": JOB.sweep_text}
    mounted = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["volumes"]
    assert {"name": "sweep", "configMap": {"name": sweep["metadata"]["name"]}} in mounted
    misspelt = json.loads(json.dumps(job["spec"]).replace("maxReplicas", "maxReplica"))
    with pytest.raises(jsonschema.ValidationError, match="maxReplica"):
        jsonschema.validate(misspelt, CRD)


def test_the_rayjob_goes_on_where_a_lost_cluster_stopped_and_leaves_none_behind():
    _, job = documents("kuberay")
    spec = job["spec"]
    assert spec["entrypoint"] == (
        "depthsweep run /sweep/sweep.yaml --address auto --store s3://b/x"
    )
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["backoffLimit"] > 0
    groups = spec["rayClusterSpec"]["workerGroupSpecs"]
    gpus = {
        group["groupName"]: group["template"]["spec"]["containers"][0]["resources"]["limits"][
            "nvidia.com/gpu"
        ]
        for group in groups
    }
    assert gpus == {"small": "1", "medium": "1", "large": "8"}


def test_a_cluster_of_kubernetes_starts_from_a_head_that_runs_nothing_and_grows():
    _, job = documents("kuberay")
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["autoscalerOptions"] == {"version": "v2"}
    head = cluster["headGroupSpec"]["rayStartParams"]
    assert (head["num-cpus"], head["num-gpus"]) == ("0", "0")
    for group, pods in zip(
        cluster["workerGroupSpecs"], read_profile("kuberay").workers, strict=True
    ):
        assert (group["replicas"], group["minReplicas"], group["maxReplicas"]) == (0, 0, pods.max)
        assert group["labels"] == {
            "ray.io/accelerator-type": pods.accelerator,
            "depthsweep/gpu-gib": str(pods.gpu_gib),
        }


def test_secrets_are_named_and_never_written():
    _, job = documents("kuberay")
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert head["envFrom"] == [{"secretRef": {"name": "depthsweep-store"}}]
    auth = job["spec"]["rayClusterSpec"]["authOptions"]
    assert auth == {"mode": "token", "secretName": "depthsweep-ray-token"}


def test_without_a_sweep_the_file_says_that_it_holds_placeholders():
    for name in ("kuberay", "slurm"):
        text = render(read_profile(name))
        assert "placeholders: give --sweep FILE and --store URL" in text
        assert EXAMPLE.store in text


def stub(folder, name, script):
    path = folder / name
    path.write_text(f"#!/bin/bash\n{script}\n", encoding="utf-8")
    path.chmod(0o755)


def test_the_batch_script_runs_the_sweep_once_on_a_cluster_of_all_nodes(tmp_path):
    profile = read_profile("slurm").model_copy(update={"venv": str(tmp_path / "my venv")})
    script = tmp_path / "job.sh"
    script.write_text(render(profile, JOB), encoding="utf-8")
    subprocess.run(["bash", "-n", str(script)], check=True)
    (tmp_path / "my venv/bin").mkdir(parents=True)
    (tmp_path / "my venv/bin/activate").write_text("")
    bin_ = tmp_path / "stubs"
    bin_.mkdir()
    stub(bin_, "scontrol", "printf 'node7\\nnode8\\n'")
    stub(bin_, "srun", 'while [[ $1 == --* ]]; do echo "srun $1"; shift; done; exec "$@"')
    stub(bin_, "ray", 'printf "%s|" "$@"; echo; echo "$RAY_AUTH_MODE $RAY_AUTH_TOKEN_PATH"')
    shown = subprocess.run(
        ["bash", str(script)],
        capture_output=True,
        text=True,
        check=True,
        env={
            "PATH": f"{bin_}:{os.environ['PATH']}",
            "HOME": "/home/me",
            "SLURM_JOB_ID": "41",
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_JOB_NODELIST": "node[7-8]",
        },
    ).stdout
    assert "srun --nodes=2\nsrun --ntasks=2\n" in shown
    assert (
        "symmetric-run|--address|node7:20041|--min-nodes|2|--num-cpus|64|--num-gpus|8|--|"
        "depthsweep|run|/shared/my sweep.yaml|--address|auto|--store|s3://b/x|\n" in shown
    )
    assert "token /home/me/.ray/auth_token" in shown


def test_symmetric_run_understands_what_it_is_given():
    from ray.scripts.symmetric_run import curate_and_validate_ray_start_args

    text = render(read_profile("slurm"), JOB)
    assert "ray symmetric-run --address" in text
    kept = curate_and_validate_ray_start_args(
        ["--address", "node7:20041", "--min-nodes", "2", "--num-cpus", "64", "--num-gpus", "8"]
    )
    assert kept == ["--num-cpus", "64", "--num-gpus", "8"]


def test_a_local_cluster_listens_on_loopback_alone():
    commands = local_commands(read_profile("local"), cpus=1)
    assert len(commands) == 2
    assert all("--node-ip-address=127.0.0.1" in command for command in commands)
    assert "--dashboard-host=127.0.0.1" in commands[0]


def test_the_image_installs_the_lock_and_every_package():
    text = (PROFILES.parent / "Dockerfile").read_text(encoding="utf-8")
    assert "pip install --no-cache-dir -c requirements.lock" in text
    for package in ("sweeps", "workers", "orchestrator", "cluster"):
        assert f"COPY {package} {package}" in text
