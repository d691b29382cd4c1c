"""Files for `ray up`: machines in AWS and Google Cloud, and machines of one's own.

`ray up` starts the head with autoscaler v2 (unless RAY_UP_enable_autoscaler_v2=0 forbids it), and
that gives each node it starts the resources and labels of its type.
Ray's token travels as a file; the store's credentials come with the role of the machine.
"""

from __future__ import annotations

import shlex
from typing import Any

from cluster.node_groups import NodeType
from cluster.profile import Aws, Cloud, Gcp, JobsApi, Static

# Where nodes of a `ray up` cluster keep the token: Ray's own default.
TOKEN_ON_NODE = "~/.ray/auth_token"
GCS_PORT = 6379
# How long a stopped driver may take to record where each run is.
STOP_SECONDS = "60"
# What the head offers to runs, whatever its machine has.
NOTHING = {"CPU": 0, "GPU": 0}


def aws(profile: Aws) -> dict[str, Any]:
    """Return the file of a cluster on AWS, with its GPU node types and spot workers."""
    provider: dict[str, Any] = {"type": "aws", "region": profile.region}
    if profile.zones:
        provider["availability_zone"] = ",".join(profile.zones)
    # Nodes are ended, not stopped: nothing on them is needed again.
    provider["cache_stopped_nodes"] = False

    def node(kind: NodeType) -> dict[str, Any]:
        disk = {"VolumeSize": profile.disk_gib, "VolumeType": "gp3"}
        config: dict[str, Any] = {
            "InstanceType": kind.instance,
            "ImageId": profile.ami,
            "IamInstanceProfile": {"Name": profile.instance_profile},
            "BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": disk}],
        }
        if kind.spot:
            config["InstanceMarketOptions"] = {"MarketType": "spot"}
        return config

    return _cloud(profile, provider, node)


def gcp(profile: Gcp) -> dict[str, Any]:
    """Return the file of a cluster on Google Cloud, with its GPU node types and spot workers."""
    provider = {
        "type": "gcp",
        "region": profile.region,
        "availability_zone": profile.zone,
        "project_id": profile.project,
    }

    def node(kind: NodeType) -> dict[str, Any]:
        boot = {"diskSizeGb": profile.disk_gib, "sourceImage": profile.source_image}
        disk = {"boot": True, "autoDelete": True, "type": "PERSISTENT", "initializeParams": boot}
        scopes = ["https://www.googleapis.com/auth/cloud-platform"]
        config: dict[str, Any] = {
            "machineType": kind.instance,
            "disks": [disk],
            "serviceAccounts": [{"email": profile.service_account, "scopes": scopes}],
        }
        scheduling: dict[str, str] = {}
        if kind.gpus:
            where = f"projects/{profile.project}/zones/{profile.zone}/acceleratorTypes/{kind.gpu}"
            config["guestAccelerators"] = [
                {"acceleratorType": where, "acceleratorCount": kind.gpus}
            ]
            scheduling["onHostMaintenance"] = "TERMINATE"
        if kind.spot:
            scheduling |= {"provisioningModel": "SPOT", "instanceTerminationAction": "DELETE"}
        if scheduling:
            config["scheduling"] = scheduling
        return config

    return _cloud(profile, provider, node)


def static(profile: Static) -> dict[str, Any]:
    """Return the file of a cluster of machines at known addresses."""
    auth = {"ssh_user": profile.ssh_user}
    if profile.ssh_private_key:
        auth["ssh_private_key"] = profile.ssh_private_key
    return {
        "cluster_name": profile.name,
        "provider": {
            "type": "local",
            "head_ip": profile.head,
            "worker_ips": list(profile.workers),
        },
        "max_workers": len(profile.workers),
        "auth": auth,
        **_everywhere(profile, list(profile.setup), profile.dashboard_port),
    }


def _cloud(profile: Cloud, provider: dict[str, Any], node: Any) -> dict[str, Any]:
    def entry(kind: NodeType) -> dict[str, Any]:
        # All that a demand may name: a node type is taken to have nothing that is not said here.
        resources = {"CPU": kind.cpus, **({"GPU": kind.gpus} if kind.gpus else {})}
        if kind.memory_bytes:
            resources["memory"] = kind.memory_bytes
        return {
            "resources": resources,
            **({"labels": kind.labels} if kind.labels else {}),
            "min_workers": kind.min,
            "max_workers": kind.max,
            "node_config": node(kind),
        }

    # No run on the head: what it holds must outlive every worker.
    head = {**entry(profile.head), "resources": NOTHING, "min_workers": 0, "max_workers": 0}
    types = {profile.head.name: head}
    types |= {worker.name: entry(worker) for worker in profile.workers}
    return {
        "cluster_name": profile.name,
        "provider": provider,
        "max_workers": sum(worker.max for worker in profile.workers),
        "idle_timeout_minutes": profile.idle_minutes,
        "auth": {"ssh_user": profile.ssh_user},
        "docker": {
            "image": profile.image,
            "container_name": "depthsweep",
            "run_options": ["--ulimit nofile=65536:65536", "--shm-size=16g"],
        },
        "head_node_type": profile.head.name,
        "available_node_types": types,
        **_everywhere(profile, list(profile.setup), 8265),
    }


def _everywhere(profile: JobsApi, setup: list[str], dashboard_port: int) -> dict[str, Any]:
    """Return what is the same wherever `ray up` makes a cluster: token, commands."""
    own = [f"export {name}={shlex.quote(value)};" for name, value in profile.env.items()]
    exports = " ".join(
        [
            *own,
            "export RAY_AUTH_MODE=token;",
            f"export RAY_AUTH_TOKEN_PATH={TOKEN_ON_NODE};",
            f"export RAY_JOB_STOP_WAIT_TIME_S={STOP_SECONDS};",
        ]
    )
    head = (
        f"{exports} ray start --head --port={GCS_PORT}"
        f" --autoscaling-config=~/ray_bootstrap_config.yaml --dashboard-port={dashboard_port}"
    )
    # The Jobs API listens on loopback alone, and is reached by a tunnel or `ray dashboard`, unless
    # the profile says otherwise.
    if isinstance(profile, Static) and profile.reach == "network":
        head += " --dashboard-host=0.0.0.0"
    return {
        "file_mounts": {TOKEN_ON_NODE: profile.token_file},
        "setup_commands": [f"chmod 600 {TOKEN_ON_NODE}", *setup],
        "head_start_ray_commands": ["ray stop", f"ulimit -n 65536; {head}"],
        "worker_start_ray_commands": [
            "ray stop",
            *_spot_notice(profile),
            f"ulimit -n 65536; {exports} ray start --address=$RAY_HEAD_IP:{GCS_PORT}",
        ],
    }


def _spot_notice(profile: JobsApi) -> list[str]:
    """Return the command that has a node of a cloud ask whether it is taken back, beside Ray."""
    if not isinstance(profile, (Aws, Gcp)):
        return []
    watch = f"python -m workers.ranks.spot_notice {profile.kind}"
    return [f"nohup setsid {watch} > /tmp/depthsweep-spot-notice.log 2>&1 < /dev/null &"]
