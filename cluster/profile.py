"""What a cluster is: one frozen, validated profile for each kind.

A profile names secrets (a file, a Kubernetes secret), it never holds one.
"""

from __future__ import annotations

import re
import shlex
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from cluster.node_groups import (
    AtLeastOne,
    Count,
    Name,
    NodeType,
    PodGroup,
    Word,
    most_gpus,
)
from sweeps.spec.frozen import Frozen

Port = Annotated[int, Field(ge=1, le=65535)]
Host = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.:-]*[A-Za-z0-9])?$")]
Url = Annotated[str, Field(pattern=r"^https?://[^\s@]+$")]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]

_SECRET = re.compile(r"(TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|ACCESS_KEY|API_KEY)", re.IGNORECASE)


class ClusterProfile(Frozen):
    """What every kind has: plain settings of the environment in which runs are executed."""

    env: dict[Variable, str] = Field(
        default={}, description="Environment of every run: plain settings, no secrets."
    )

    @field_validator("env")
    @classmethod
    def _no_secret(cls, env: dict[str, str]) -> dict[str, str]:
        for name in env:
            if _SECRET.search(name) and not name.endswith(("_PATH", "_FILE")):
                raise ValueError(
                    f"{name} looks like a secret, and whoever reads the profile or the dashboard"
                    " would see it; give the nodes a role, a file or a Kubernetes secret instead"
                )
        return env

    @property
    def most_gpus(self) -> int | None:
        """GPUs of the cluster at its largest; None where the profile does not say."""
        return None


def in_clear(address: str) -> bool:
    """Return whether what is sent to an address (a token, for one) can be read on the way."""
    parts = urlsplit(address)
    return parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "localhost", "::1")


def _require_distinct(what: str, *groups: NodeType | PodGroup) -> None:
    names = [group.name for group in groups]
    if len(set(names)) < len(names):
        raise ValueError(f"{what} need names of their own; found {', '.join(names)}")


class JobsApi(ClusterProfile):
    """A cluster whose head answers Ray's Jobs API."""

    token_file: str = Field(
        default="~/.ray/auth_token",
        description="File with the cluster's token, here and on its nodes; mode 0600.",
    )
    code: Literal["upload", "installed"] = Field(
        default="upload",
        description="upload: depthsweep itself goes with each job; installed: nodes have it.",
    )


class Local(JobsApi):
    """Several Ray nodes on this machine, on loopback."""

    kind: Literal["local"]
    token_file: str = Field(default="", description="Empty: a token of the cluster's own.")
    nodes: AtLeastOne = Field(default=2, description="Ray nodes, the head among them.")
    cpus_per_node: AtLeastOne | None = Field(default=None, description="Default: a fair share.")
    gpus: Count = Field(default=0, description="GPUs, all on the first node.")
    port: Port = 6399
    dashboard_port: Port = 8265

    @model_validator(mode="after")
    def _ports(self) -> Local:
        if self.port == self.dashboard_port:
            raise ValueError(f"port and dashboard_port are both {self.port}; give each its own")
        return self

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.dashboard_port}"

    @property
    def most_gpus(self) -> int:
        return self.gpus


class Static(JobsApi):
    """Machines of your own, by their addresses."""

    kind: Literal["static"]
    name: Name = "depthsweep"
    head: Host
    workers: tuple[Host, ...] = Field(
        default=(), description="Other machines; none when the cluster is already up."
    )
    ssh_user: Word = "ubuntu"
    ssh_private_key: str | None = Field(default=None, description="Path of the key file here.")
    setup: tuple[str, ...] = Field(default=(), description="Shell commands on each machine.")
    dashboard_port: Port = 8265
    reach: Literal["tunnel", "network"] = Field(
        default="tunnel",
        description="tunnel: the Jobs API listens on the head's loopback, and ssh forwards its port"
        " to this machine; network: on every address of the head, its token in clear.",
    )
    jobs_address: Url | None = Field(
        default=None, description="Where the Jobs API is reached from here, if elsewhere."
    )

    @property
    def address(self) -> str:
        host = "127.0.0.1" if self.reach == "tunnel" else self.head
        return self.jobs_address or f"http://{host}:{self.dashboard_port}"

    @property
    def tunnel(self) -> str:
        """The command that forwards the Jobs API to this machine while it runs."""
        path, port = self.ssh_private_key, self.dashboard_port
        home = "~/" if path and path.startswith("~/") else ""  # which a shell does not see quoted
        key = f" -i {home}{shlex.quote(path.removeprefix(home))}" if path else ""
        return f"ssh -N -L {port}:127.0.0.1:{port}{key} {self.ssh_user}@{self.head}"


class Cloud(JobsApi):
    """A cluster that Ray's autoscaler starts (`ray up`) and grows."""

    name: Name = "depthsweep"
    region: Word
    image: Word
    head: NodeType
    workers: Annotated[tuple[NodeType, ...], Field(min_length=1)]
    disk_gib: AtLeastOne = 200
    idle_minutes: AtLeastOne = 10
    ssh_user: Word = "ubuntu"
    setup: tuple[str, ...] = ()
    jobs_address: Url = Field(
        default="http://127.0.0.1:8265", description="Where `ray dashboard FILE` forwards it."
    )

    @property
    def address(self) -> str:
        return self.jobs_address

    @property
    def most_gpus(self) -> int:
        return most_gpus(self.workers)

    @model_validator(mode="after")
    def _distinct(self) -> Cloud:
        _require_distinct("node types", self.head, *self.workers)
        return self


class Aws(Cloud):
    kind: Literal["aws"]
    zones: tuple[Word, ...] = ()
    ami: Word = Field(description="An image with NVIDIA's driver and Docker, of the region.")
    instance_profile: Word = Field(
        description="IAM instance profile: may launch nodes and use the store's bucket."
    )


class Gcp(Cloud):
    kind: Literal["gcp"]
    project: Word
    zone: Word
    source_image: Word = Field(
        default="projects/deeplearning-platform-release/global/images/family/common-cu128-ubuntu-2204",
        description="An image with NVIDIA's driver and Docker.",
    )
    service_account: Word = Field(
        description="May launch nodes and use the store's bucket; its e-mail address."
    )

    @model_validator(mode="after")
    def _accelerators(self) -> Gcp:
        for node in (self.head, *self.workers):
            if node.gpus and node.gpu is None:
                raise ValueError(f"node type {node.name}: name its accelerator with `gpu:`")
        return self


class Kuberay(ClusterProfile):
    """A KubeRay RayJob: a cluster for one sweep, gone when the sweep is done."""

    kind: Literal["kuberay"]
    namespace: Name = "default"
    image: Word
    head: PodGroup
    workers: Annotated[tuple[PodGroup, ...], Field(min_length=1)]
    service_account: Name | None = Field(
        default=None, description="With workload identity: may use the store's bucket."
    )
    secrets: tuple[Name, ...] = Field(
        default=(), description="Kubernetes secrets whose keys become environment variables."
    )
    token_secret: Name = Field(description="Kubernetes secret with the key auth_token.")
    volume_claim: Name | None = Field(
        default=None, description="A ReadWriteMany claim, mounted at /store."
    )
    backoff_limit: Count = Field(default=3, description="New clusters after a failed one.")
    queue: Name | None = Field(
        default=None, description="Local queue of Kueue; the cluster then has all pods at once."
    )
    image_pull_secrets: tuple[Name, ...] = ()
    grace_seconds: AtLeastOne | None = Field(
        default=None,
        description="What a pod that is taken away is given to checkpoint; unsaid: as long as the"
        " largest run needs.",
    )
    kept_seconds: Count = Field(default=600, description="How long an ended RayJob stays.")

    @property
    def most_gpus(self) -> int:
        return most_gpus(self.workers)

    @model_validator(mode="after")
    def _distinct(self) -> Kuberay:
        _require_distinct("groups of pods", self.head, *self.workers)
        return self


class Slurm(ClusterProfile):
    """A Slurm allocation that is a Ray cluster for one sweep."""

    kind: Literal["slurm"]
    nodes: AtLeastOne
    cpus_per_node: AtLeastOne
    gpus_per_node: Count = 0
    time: Annotated[str, Field(pattern=r"^([0-9]+-)?[0-9]{1,2}:[0-5][0-9]:[0-5][0-9]$")]
    notice_seconds: AtLeastOne | None = Field(
        default=None,
        description="How long before the time limit runs are told to checkpoint; unsaid: as long"
        " as the largest one needs.",
    )
    partition: Word | None = None
    account: Word | None = None
    qos: Word | None = None
    modules: tuple[Word, ...] = ()
    venv: Word = Field(description="Virtual environment with depthsweep, seen by every node.")
    token_file: Word = Field(
        default="~/.ray/auth_token", description="On a folder all nodes see; mode 0600."
    )

    @property
    def most_gpus(self) -> int:
        return self.nodes * self.gpus_per_node

    @property
    def seconds(self) -> int:
        """The time limit in seconds."""
        days, _, clock = self.time.rpartition("-")
        hours, minutes, seconds = map(int, clock.split(":"))
        return ((24 * int(days or 0) + hours) * 60 + minutes) * 60 + seconds


KINDS: dict[str, type[ClusterProfile]] = {
    "local": Local,
    "static": Static,
    "aws": Aws,
    "gcp": Gcp,
    "kuberay": Kuberay,
    "slurm": Slurm,
}
Profile = Local | Static | Aws | Gcp | Kuberay | Slurm


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a profile file, one alternative a kind."""
    from pydantic import TypeAdapter

    kinds: Any = Annotated[Profile, Field(discriminator="kind")]
    return {"title": "depthsweep cluster profile", **TypeAdapter(kinds).json_schema()}
