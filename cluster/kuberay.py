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
# Time for a checkpoint between a preemption notice and the end.
GRACE_SECONDS = 90
OWN_LABEL = {"app.kubernetes.io/name": "depthsweep"}


def rayjob(profile: Kuberay, job: Job, ray_version: str) -> list[dict[str, Any]]:
    """Return the documents to apply: a ConfigMap with the sweep file, and the RayJob."""
    name = job.submission_id
    metadata = {"name": name, "namespace": profile.namespace, "labels": OWN_LABEL}
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
            "enableInTreeAutoscaling": True,
            "autoscalerOptions": {"version": "v2"},
            "authOptions": {"mode": "token", "secretName": profile.token_secret},
            "headGroupSpec": {
                # No run on the head: what it holds must outlive every worker.
                "rayStartParams": {
                    "num-cpus": "0",
                    "num-gpus": "0",
                    "dashboard-host": "0.0.0.0",
                },
                "template": _pod(profile, profile.head, name, "ray-head"),
            },
            "workerGroupSpecs": [_worker_group(profile, group, name) for group in profile.workers],
        },
    }
    return [
        sweep,
        {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": metadata, "spec": spec},
    ]


def _worker_group(profile: Kuberay, group: PodGroup, name: str) -> dict[str, Any]:
    return {
        "groupName": group.name,
        "replicas": group.min,
        "minReplicas": group.min,
        "maxReplicas": group.max,
        "rayStartParams": {},
        **({"labels": group.labels} if group.labels else {}),
        "template": _pod(profile, group, name, "ray-worker"),
    }


def _pod(profile: Kuberay, group: PodGroup, name: str, container: str) -> dict[str, Any]:
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
    pod: dict[str, Any] = {
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "containers": [
            {
                "name": container,
                "image": profile.image,
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
    if group.node_selector:
        pod["nodeSelector"] = group.node_selector
    if tolerations:
        pod["tolerations"] = tolerations
    return {"metadata": {"labels": OWN_LABEL}, "spec": pod}
