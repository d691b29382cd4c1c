"""Rendered files against the schemas of those who read them; scripts are run."""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
import yaml

from cluster.job import Job
from cluster.library import PROFILES, profile_names, read_profile
from cluster.profile import KINDS, in_clear
from cluster.render import EXAMPLE, local_commands, render
from sweeps.errors import UserError

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


@pytest.mark.parametrize("name", ["aws", "gcp"])
def test_workers_of_a_cloud_ask_whether_they_are_taken_back(name, tmp_path):
    from workers.ranks.spot_notice import CLOUDS

    (config,) = documents(name)
    (asks,) = [line for line in config["worker_start_ray_commands"] if "spot_notice" in line]
    assert not any("spot_notice" in line for line in config["head_start_ray_commands"])
    assert name in CLOUDS
    stub(tmp_path, "python", f'echo "$@" > {tmp_path}/asked')
    path = f"{tmp_path}:{os.environ['PATH']}"
    subprocess.run(["bash", "-c", f"{asks} wait"], env={"PATH": path}, check=True)
    assert (tmp_path / "asked").read_text() == f"-m workers.ranks.spot_notice {name}\n"
    (own,) = documents("static")
    assert not any("spot_notice" in line for line in own["worker_start_ray_commands"])


def test_the_jobs_api_of_own_machines_is_reached_by_a_tunnel_unless_told_otherwise():
    (tunnelled,) = documents("static")
    assert not any("dashboard-host" in line for line in tunnelled["head_start_ray_commands"])
    profile = read_profile("static")
    assert profile.address == "http://127.0.0.1:8265"
    assert profile.tunnel == ("ssh -N -L 8265:127.0.0.1:8265 -i ~/.ssh/id_ed25519 ubuntu@10.0.0.1")
    assert f"reach:  {profile.tunnel}" in render(profile)
    assert not in_clear(profile.address)
    open_ = profile.model_copy(update={"reach": "network"})
    assert "--dashboard-host=0.0.0.0" in render(open_)
    assert open_.address == "http://10.0.0.1:8265"
    assert in_clear(open_.address)
    assert not in_clear("https://10.0.0.1:8265")


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


def kubernetes(**changes):
    """Return the ConfigMap and the RayJob of a profile with some changes."""
    profile = read_profile("kuberay").model_copy(update=changes)
    return list(yaml.safe_load_all(render(profile, JOB)))


def pods_of(job):
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"] for group in groups]


def as_pod(template):
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": template["spec"]}


def test_kubernetes_own_definitions_take_every_object_strictly():
    validate = pytest.importorskip("kubernetes_validate")
    own = {"priorityClassName": "low", "affinity": {"nodeAffinity": {}}}
    workers = tuple(
        group.model_copy(update={"pod": own}) for group in read_profile("kuberay").workers
    )
    more = {"image_pull_secrets": ("registry",), "volume_claim": "store", "queue": "study"}
    for changes in ({}, {"workers": workers, **more}):
        sweep, job = kubernetes(**changes)
        jsonschema.validate(job["spec"], CRD)
        validate.validate(sweep, "1.33", strict=True)
        for template in pods_of(job):
            validate.validate(as_pod(template), "1.33", strict=True)
    assert pods_of(job)[1]["spec"]["priorityClassName"] == "low"
    misspelt = json.loads(json.dumps(as_pod(template)).replace("preStop", "prestop"))
    with pytest.raises(validate.ValidationError):
        validate.validate(misspelt, "1.33", strict=True)


def test_a_pod_that_is_taken_away_has_its_ranks_checkpoint_first():
    for changes, job_seconds, grace in (
        ({}, 90, 90),
        ({}, 400, 400),
        ({"grace_seconds": 120}, 400, 120),
    ):
        profile = read_profile("kuberay").model_copy(update=changes)
        job = replace(JOB, notice_seconds=job_seconds)
        head, *workers = pods_of(list(yaml.safe_load_all(render(profile, job)))[1])
        assert "lifecycle" not in head["spec"]["containers"][0]
        for pod in workers:
            assert pod["spec"]["terminationGracePeriodSeconds"] == grace
            hook = pod["spec"]["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
            assert hook == ["python", "-m", "workers.ranks.leaving", str(grace - 10)]


def test_volumes_belong_to_the_image_s_user():
    image = (PROFILES.parent / "Dockerfile").read_text(encoding="utf-8")
    for pod in pods_of(kubernetes(volume_claim="store")[1]):
        user = pod["spec"]["securityContext"]["fsGroup"]
        assert f"--uid {user} ray" in image
        mounts = pod["spec"]["containers"][0]["volumeMounts"]
        assert {"name": "store", "mountPath": "/store"} in mounts


def test_a_queue_of_kueue_admits_the_cluster_as_a_whole():
    _, job = kubernetes(queue="study")
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "study"
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["enableInTreeAutoscaling"] is False
    for group in cluster["workerGroupSpecs"]:
        assert group["replicas"] == group["minReplicas"] == group["maxReplicas"] > 0
    assert "kueue.x-k8s.io/queue-name" not in kubernetes()[1]["metadata"]["labels"]


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


# What squeue says of the job when its step has ended, and what the site then does to the script.
STEP_ENDS = 'while [[ $1 == --* ]]; do echo "srun $1"; shift; done; echo "$*"; exit $ENDS'


@pytest.fixture
def batch(tmp_path):
    """Return ``batch(ends, state)``, which runs the script with stubs of Slurm; the step ends with
    an exit code. Returns the script's exit code, and what it and the stubs said."""
    profile = read_profile("slurm").model_copy(update={"venv": str(tmp_path / "my venv")})
    script = tmp_path / "job.sh"
    script.write_text(render(profile, JOB), encoding="utf-8")
    subprocess.run(["bash", "-n", str(script)], check=True)
    (tmp_path / "my venv/bin").mkdir(parents=True)
    (tmp_path / "my venv/bin/activate").write_text("")
    bin_ = tmp_path / "stubs"
    bin_.mkdir()
    stub(bin_, "srun", STEP_ENDS)
    stub(bin_, "squeue", "echo $STATE")
    stub(bin_, "sleep", "exit 0")
    stub(bin_, "scontrol", 'echo "scontrol $*"')
    stub(bin_, "scancel", 'echo "scancel $*"')

    def run(ends, state="RUNNING"):
        environment = {"HOME": "/home/me", "SLURM_JOB_ID": "41", "ENDS": str(ends), "STATE": state}
        done = subprocess.run(
            ["bash", str(script)],
            capture_output=True,
            text=True,
            env={"PATH": f"{bin_}:{os.environ['PATH']}", **environment},
        )
        return done.returncode, done.stdout

    return run


def test_the_batch_script_runs_the_sweep_once_on_a_cluster_of_all_nodes(batch):
    code, shown = batch(0)
    assert code == 0
    assert "srun --nodes=2\nsrun --ntasks=2\nsrun --wait=0\nsrun --kill-on-bad-exit=0\n" in shown
    assert (
        "python -m orchestrator.jobs.slurm_node --nodes 2 --cpus 64 --gpus 8 --notice 90 --"
        " depthsweep run /shared/my sweep.yaml --address auto --store s3://b/x\n" in shown
    )
    assert "depthsweep: job 41 ended with exit code 0\n" in shown
    assert "requeue" not in shown


@pytest.mark.parametrize("ends", [1, 2])
def test_a_sweep_that_failed_fails_its_job(batch, ends):
    code, shown = batch(ends)
    assert code == ends
    assert "requeue" not in shown


def test_a_sweep_that_a_notice_stopped_goes_back_into_the_line_unless_slurm_ends_it(batch):
    assert "scontrol requeue 41" in batch(143)[1]
    for state in ("COMPLETING", "PENDING", "CANCELLED"):
        assert "requeue" not in batch(143, state)[1]


def test_the_notice_before_the_time_limit_leaves_time_to_run():
    profile = read_profile("slurm")
    assert "#SBATCH --signal=TERM@90\n" in render(profile, JOB)
    large = replace(JOB, notice_seconds=1660)
    assert "#SBATCH --signal=TERM@1660\n" in render(profile, large)
    own = profile.model_copy(update={"notice_seconds": 300})
    assert "#SBATCH --signal=TERM@300\n" in render(own, large)
    short = profile.model_copy(update={"time": "00:28:00"})
    with pytest.raises(UserError, match="leaves nothing beside the 1660 s"):
        render(short, large)
    assert profile.model_copy(update={"time": "1-02:03:04"}).seconds == 93_784


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
