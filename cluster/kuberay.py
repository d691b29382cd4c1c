"""A KubeRay RayJob (ray.io/v1), with the sweep file beside it as a ConfigMap.

Each retry of `backoffLimit` makes a new cluster; the entrypoint goes on with what the store says is
left, so a retry repeats no finished run.
"""

from __future__ import annotations

from typing import Any

from cluster.job import Job
from cluster.node_groups import PodGroup
from cluster.profile import Kuberay

SWEEP_FOLDER = "/sweep"
STORE_FOLDER = "/store"
# Who the image's processes are: a volume that is mounted belongs to this group.
IMAGE_USER = 1000
# Of a pod's last seconds what Ray is left to end by itself.
ENDING_SECONDS = 10
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
OWN_LABEL = {"app.kubernetes.io/name": "depthsweep"}


def rayjob(profile: Kuberay, job: Job, ray_version: str) -> list[dict[str, Any]]:
    """Return the documents to apply: a ConfigMap with the sweep file, and the RayJob."""
    name = job.submission_id
    metadata = {"name": name, "namespace": profile.namespace, "labels": OWN_LABEL}
    queued = {QUEUE_LABEL: profile.queue} if profile.queue else {}
    grace = profile.grace_seconds or job.notice_seconds
    sweep = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata,
        "data": {"sweep.yaml": job.sweep_text},
    }
    spec = {
        "entrypoint": job.shell(f"{SWEEP_FOLDER}/sweep.yaml"),
        "metadata": {"sweep": job.sweep, "version": job.version},
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": profile.kept_seconds,
        "backoffLimit": profile.backoff_limit,
        "rayClusterSpec": {
            "rayVersion": ray_version,
            # Kueue admits a cluster as a whole.
            **(
                {"enableInTreeAutoscaling": False}
                if queued
                else {"enableInTreeAutoscaling": True, "autoscalerOptions": {"version": "v2"}}
            ),
            "authOptions": {"mode": "token", "secretName": profile.token_secret},
            "headGroupSpec": {
                # No run on the head: what it holds must outlive every worker.
                "rayStartParams": {
                    "num-cpus": "0",
                    "num-gpus": "0",
                    "dashboard-host": "0.0.0.0",
                },
                "template": _pod(profile, profile.head, name, "ray-head", grace),
            },
            "workerGroupSpecs": [
                _worker_group(profile, group, name, grace) for group in profile.workers
            ],
        },
    }
    return [
        sweep,
        {
            "apiVersion": "ray.io/v1",
            "kind": "RayJob",
            "metadata": {**metadata, "labels": {**OWN_LABEL, **queued}},
            "spec": spec,
        },
    ]


def _worker_group(profile: Kuberay, group: PodGroup, name: str, grace: int) -> dict[str, Any]:
    least = group.max if profile.queue else group.min
    return {
        "groupName": group.name,
        "replicas": least,
        "minReplicas": least,
        "maxReplicas": group.max,
        "rayStartParams": {},
        **({"labels": group.labels} if group.labels else {}),
        "template": _pod(profile, group, name, "ray-worker", grace),
    }


def _pod(
    profile: Kuberay, group: PodGroup, name: str, container: str, grace: int
) -> dict[str, Any]:
    size: dict[str, str] = {"cpu": str(group.cpus), "memory": group.memory}
    if group.gpus:
        size["nvidia.com/gpu"] = str(group.gpus)
    volumes: list[dict[str, Any]] = [
        {"name": "sweep", "configMap": {"name": name}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": group.shared_memory}},
    ]
    mounts = [
        {"name": "sweep", "mountPath": SWEEP_FOLDER, "readOnly": True},
        {"name": "shm", "mountPath": "/dev/shm"},
    ]
    if profile.volume_claim:
        claim = {"claimName": profile.volume_claim}
        volumes.append({"name": "store", "persistentVolumeClaim": claim})
        mounts.append({"name": "store", "mountPath": STORE_FOLDER})
    tolerations = [toleration.model_dump(exclude_none=True) for toleration in group.tolerations]
    if group.gpus:
        tolerations.append({"key": "nvidia.com/gpu", "operator": "Exists"})
    # Kubernetes tells a container's first process alone, which is Ray's.
    told = ["python", "-m", "workers.ranks.leaving", str(max(1, grace - ENDING_SECONDS))]
    ranks = {} if group is profile.head else {"lifecycle": {"preStop": {"exec": {"command": told}}}}
    pod: dict[str, Any] = {
        "terminationGracePeriodSeconds": grace,
        "securityContext": {
            "fsGroup": IMAGE_USER,
            "fsGroupChangePolicy": "OnRootMismatch",
        },
        "containers": [
            {
                "name": container,
                "image": profile.image,
                **ranks,
                "resources": {"requests": size, "limits": size},
                "env": [{"name": key, "value": value} for key, value in profile.env.items()],
                "envFrom": [{"secretRef": {"name": secret}} for secret in profile.secrets],
                "volumeMounts": mounts,
            }
        ],
        "volumes": volumes,
    }
    if profile.service_account:
        pod["serviceAccountName"] = profile.service_account
    if profile.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": secret} for secret in profile.image_pull_secrets]
    if group.node_selector:
        pod["nodeSelector"] = group.node_selector
    if tolerations:
        pod["tolerations"] = tolerations
    return {"metadata": {"labels": OWN_LABEL}, "spec": {**pod, **group.pod}}
