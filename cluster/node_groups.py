"""Machines or pods of one size: what an autoscaler may start, and what it must know of each.

An autoscaler takes a node that is not there yet to have what its type says and nothing else: a run
that asks for host memory, or for a type of GPU, waits for ever where the type does not name them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from sweeps.spec.frozen import Frozen

Count = Annotated[int, Field(ge=0)]
AtLeastOne = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(pattern=r"^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$")]
# What stands in a line of a shell script or of `ray start` as it is.
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.,:/@=+%~-]+$")]
Memory = Annotated[str, Field(pattern=r"^[1-9][0-9]*(Mi|Gi|Ti)$")]
# What Kubernetes, and Ray after it, takes for the value of a label.
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$")]

ACCELERATOR_LABEL = "ray.io/accelerator-type"
GPU_GIB_LABEL = "depthsweep/gpu-gib"


class Workers(Frozen):
    """Machines or pods of one size, of which an autoscaler starts between ``min`` and ``max``."""

    name: Name
    cpus: AtLeastOne
    gpus: Count = 0
    accelerator: Label | None = Field(
        default=None,
        description="Ray's name of the GPU (L4, A100, H100), by which runs ask for a type.",
    )
    gpu_gib: AtLeastOne | None = Field(
        default=None,
        description="Memory of each GPU in GiB: models are cut to it before the first node is up.",
    )
    min: Count = 0
    max: AtLeastOne = 1

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min: {self.min} is more than max: {self.max}")
        for key in ("accelerator", "gpu_gib"):
            if getattr(self, key) is not None and not self.gpus:
                raise ValueError(f"{self.name}: {key}: {getattr(self, key)}, but no `gpus:`")
        return self

    @property
    def labels(self) -> dict[str, str]:
        """What Ray's autoscaler is told of nodes that are not there yet, and those then carry."""
        said = {ACCELERATOR_LABEL: self.accelerator, GPU_GIB_LABEL: self.gpu_gib}
        return {key: str(value) for key, value in said.items() if value is not None}


def most_gpus(groups: Iterable[Workers]) -> int:
    """GPUs that the groups have together when all that may be there are."""
    return sum(group.max * group.gpus for group in groups)


def ray_name(gpu: str) -> str:
    """Return what Ray calls a GPU of Google's catalogue: nvidia-tesla-t4 is a T4 as Ray sees it.

    Ray's names do not tell 40 GiB from 80: where a cluster has both, say `accelerator`.
    """
    parts = re.sub(r"-[0-9]+gb$", "", gpu.lower()).split("-")
    return "-".join(part for part in parts if part not in ("nvidia", "tesla")).upper()


class NodeType(Workers):
    """Machines of one type in a cloud; models go where their memory estimate fits."""

    instance: Word
    memory: Memory | None = Field(
        default=None,
        description="Host memory for runs. Unsaid, no node comes for a run that asks for memory"
        " (except on AWS, which is asked: 70 % of the machine's).",
    )
    gpu: Word | None = Field(
        default=None,
        description="GCP: the accelerator's type; `accelerator` follows from it where unsaid.",
    )
    spot: bool = Field(default=False, description="May be taken away; runs continue elsewhere.")

    @property
    def labels(self) -> dict[str, str]:
        known = {ACCELERATOR_LABEL: ray_name(self.gpu)} if self.gpu and self.gpus else {}
        return known | super().labels

    @property
    def memory_bytes(self) -> int | None:
        if self.memory is None:
            return None
        units = {"Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}
        return int(self.memory[:-2]) * units[self.memory[-2:]]


# What a pod's spec has from elsewhere in the profile.
OF_DEPTHSWEEP = {
    "containers": "say image, cpus, memory, gpus",
    "volumes": "say volume_claim, shared_memory",
    "terminationGracePeriodSeconds": "say grace_seconds",
    "serviceAccountName": "say service_account",
    "imagePullSecrets": "say image_pull_secrets",
    "nodeSelector": "say node_selector",
    "tolerations": "say tolerations",
}


class Toleration(Frozen):
    key: str
    operator: Literal["Exists", "Equal"] = "Exists"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class PodGroup(Workers):
    """Pods of one size."""

    memory: Memory
    shared_memory: Memory = "16Gi"
    node_selector: dict[str, str] = Field(default={}, description="Labels of the nodes to use.")
    tolerations: tuple[Toleration, ...] = ()
    pod: dict[str, Any] = Field(
        default={},
        description="Further fields of the pods' spec, as Kubernetes names them: priorityClassName,"
        " affinity, runtimeClassName, …; none that depthsweep sets itself.",
    )

    @field_validator("pod")
    @classmethod
    def _not_ours(cls, pod: dict[str, Any]) -> dict[str, Any]:
        for name in pod:
            if name in OF_DEPTHSWEEP:
                raise ValueError(f"pod: {name}: depthsweep sets it: {OF_DEPTHSWEEP[name]}")
        return pod
