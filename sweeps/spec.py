"""What one run is: frozen, validated objects and the identity they have.

A ``RunSpec`` holds everything that decides a run's *result*, plus an ``Execution`` that decides
only how it is carried out. ``run_id`` hashes the first and not the second, so two sweeps share a
finished run and a retry on other hardware is the same run. Paths never enter it: a local model or
data file counts by its content digest.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

PRETRAINING_OBJECTIVES = ("clm", "mlm")
OBJECTIVES = ("clm", "mlm", "classification", "contrastive")
CONTROLS = ("standard", "layer_clip", "equal_step")
METRICS = (
    "procrustes",
    "cka_distance",
    "cka_distance_debiased",
    "mean_shift",
    "scale_log_ratio",
    "effective_rank",
)

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Steps = Annotated[int, Field(ge=1)]
Revision = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$", description="A full commit hash.")]


class Frozen(BaseModel):
    """Immutable, refusing unknown keys and silent conversions (the text "3" is not a number)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


# ---------------------------------------------------------------------------------------- models
class HubModel(Frozen):
    """A model on the Hugging Face hub at a pinned commit."""

    hub: str = Field(description="Repository, for instance EleutherAI/pythia-160m.")
    revision: Revision
    pretraining: Literal["clm", "mlm"]
    pickled_weights: bool = Field(
        False, description="Also load pytorch_model.bin where the revision has no safetensors."
    )
    trust_remote_code: bool = Field(False, description="Run the model code of the repository.")

    def identity(self) -> dict[str, Any]:
        return {"hub": self.hub, "revision": self.revision}


class FolderModel(Frozen):
    """A folder with config.json, *.safetensors and a tokenizer; its content is its identity."""

    folder: str = Field(description="Path of the folder.")
    digest: str
    pretraining: Literal["clm", "mlm"]
    pickled_weights: bool = False
    trust_remote_code: bool = False

    def identity(self) -> dict[str, Any]:
        return {"folder": self.digest}


STANDIN_FAMILIES = (
    "bert",
    "roberta",
    "gpt2",
    "opt",
    "opt_post_norm",
    "gpt_neox",
    "codegen",
    "mamba",
    "rwkv",
)


class StandinModel(Frozen):
    """A tiny model of a family's own class, pretrained in place on text that ships with Python."""

    standin: Literal[STANDIN_FAMILIES]  # type: ignore[valid-type]
    layers: Annotated[int, Field(ge=2, le=64)] = 6
    width: Annotated[int, Field(ge=16, le=1024, multiple_of=16)] = 96
    vocabulary: Annotated[int, Field(ge=300, le=65536)] = 1024
    pretrain_steps: Steps = 300
    pretraining: Literal["clm", "mlm"]
    digest: str = Field(description="Content digest of the pretraining text.")

    def identity(self) -> dict[str, Any]:
        return self.model_dump(mode="json")


ModelSource = HubModel | FolderModel | StandinModel


class ModelSpec(Frozen):
    """A model under the name the sweep gives it; only the source enters the identity."""

    name: str
    source: ModelSource


# ------------------------------------------------------------------------------------------ data
class HubData(Frozen):
    """A dataset on the hub at a pinned commit, loaded by ``datasets``."""

    hub: str
    config: str | None = None
    revision: Revision
    split: str = "train"
    columns: dict[str, str] = Field(default_factory=dict)

    def identity(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    @property
    def label(self) -> str:
        return "/".join(part for part in (self.hub.split("/")[-1], self.config) if part)


class FileData(Frozen):
    """A local .txt, .jsonl or .parquet file; its content is its identity."""

    file: str
    digest: str
    columns: dict[str, str] = Field(default_factory=dict)

    def identity(self) -> dict[str, Any]:
        return {"file": self.digest, "columns": self.columns}

    @property
    def label(self) -> str:
        return self.file.rsplit("/", 1)[-1]


class BuiltinData(Frozen):
    """A corpus made from the running Python's own documentation and library source."""

    builtin: str
    digest: str
    columns: dict[str, str] = Field(default_factory=dict)

    def identity(self) -> dict[str, Any]:
        return {"builtin": self.builtin, "digest": self.digest}

    @property
    def label(self) -> str:
        return self.builtin


DataSource = HubData | FileData | BuiltinData


# ------------------------------------------------------------------------------------ objectives
class Objective(Frozen):
    """What the loss is and the data it is taken on."""

    kind: Literal["clm", "mlm", "classification", "contrastive"]
    data: DataSource
    mask_probability: Annotated[float, Field(gt=0, lt=1)] | None = None
    labels: Annotated[int, Field(ge=2)] | None = None
    temperature: Positive | None = None
    pooling: Literal["mean", "first", "last"] | None = None

    def identity(self) -> dict[str, Any]:
        settings = self.model_dump(mode="json", exclude={"data"}, exclude_none=True)
        return {**settings, "data": self.data.identity()}


OBJECTIVE_DEFAULTS: dict[str, dict[str, Any]] = {
    "clm": {},
    "mlm": {"mask_probability": 0.15},
    "classification": {"labels": 2, "pooling": "mean"},
    "contrastive": {"temperature": 0.05, "pooling": "mean"},
}
DATA_ROLES: dict[str, tuple[str, ...]] = {
    "clm": ("text",),
    "mlm": ("text",),
    "classification": ("text", "label"),
    "contrastive": ("anchor", "positive"),
}


# -------------------------------------------------------------------------------------- controls
class Standard(Frozen):
    """No control of single layers."""

    kind: Literal["standard"] = "standard"

    @property
    def setting(self) -> str:
        return ""


class LayerClip(Frozen):
    """Each layer group's gradient is clipped to ``max_norm`` by itself."""

    kind: Literal["layer_clip"] = "layer_clip"
    max_norm: Positive

    @property
    def setting(self) -> str:
        return f"{self.max_norm:g}"


class EqualStep(Frozen):
    """After each step every controlled layer has moved by the same ‖ΔW‖/‖W‖."""

    kind: Literal["equal_step"] = "equal_step"
    target: Literal["mean", "median"] | Positive = "mean"
    scope: Literal["blocks", "all"] = "blocks"

    @property
    def setting(self) -> str:
        target = self.target if isinstance(self.target, str) else f"{self.target:g}"
        return target if self.scope == "blocks" else f"{target},{self.scope}"


Control = Annotated[Standard | LayerClip | EqualStep, Field(discriminator="kind")]


# ------------------------------------------------------------------------- optimizer, probe, run
class Optimizer(Frozen):
    """AdamW with linear warm-up, then constant or linear decay to zero at the last step."""

    learning_rate: Positive
    betas: tuple[float, float] = (0.9, 0.999)
    eps: Positive = 1e-6
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    schedule: Literal["linear", "constant"] = "linear"
    max_grad_norm: Positive | None = Field(
        None, description="Global gradient clipping over all parameters together."
    )

    @model_validator(mode="after")
    def _betas_in_range(self) -> Optimizer:
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError("betas must lie in [0, 1)")
        return self


class Probe(Frozen):
    """The fixed token rows on which hidden states are compared, and when."""

    data: DataSource
    rows: Annotated[int, Field(ge=4, description="Probe tokens n; at least 4.")] = 512
    sequence_length: Annotated[int, Field(ge=4)] = 64
    every: Steps | None = Field(
        None, description="Probe every this many steps; always at the last step."
    )
    seed: int = 0
    metrics: tuple[Literal[METRICS], ...] = METRICS  # type: ignore[valid-type]

    @model_validator(mode="after")
    def _metrics_distinct(self) -> Probe:
        if not self.metrics or len(set(self.metrics)) != len(self.metrics):
            raise ValueError("metrics must name at least one metric, each once")
        return self

    def identity(self) -> dict[str, Any]:
        return {
            **self.model_dump(mode="json", exclude={"data"}),
            "data": self.data.identity(),
        }


class Execution(Frozen):
    """How a run is carried out; nothing here may change its result beyond rounding."""

    micro_batch_size: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Sequences a forward pass; the rest of the batch is accumulated."
    )
    part_steps: Steps = Field(
        100, description="Steps of rows in one Parquet part, and between checkpoints."
    )
    engine: Literal["plain", "deepspeed"] | None = Field(
        None, description="What trains: chosen from the model's size and the machine if not said."
    )
    processes: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Ranks of one run, each with its share of the batch."
    )
    zero_stage: Literal[0, 1, 2, 3] | None = Field(
        None, description="What ranks share: 1 optimizer, 2 and gradients, 3 and weights."
    )
    offload: Literal["none", "optimizer", "parameters"] | None = Field(
        None, description="What lies in CPU memory; parameters takes the optimizer with it."
    )
    checkpoint_activations: bool | None = Field(
        None, description="Compute each block again in the backward pass instead of keeping it."
    )

    @model_validator(mode="after")
    def _engine_has_its_settings(self) -> Execution:
        shared = {
            "processes": self.processes not in (None, 1),
            "zero_stage": self.zero_stage is not None,
            "offload": self.offload not in (None, "none"),
        }
        said = [name for name, given in shared.items() if given]
        if self.engine == "plain" and said:
            raise ValueError(f"{said[0]} does nothing with engine plain; use engine deepspeed")
        if self.offload == "parameters" and self.zero_stage not in (None, 3):
            raise ValueError("offload: parameters needs zero_stage 3")
        if self.offload == "optimizer" and self.zero_stage == 0:
            raise ValueError("offload: optimizer needs zero_stage 1, 2 or 3")
        return self

    def settled(self) -> Execution:
        """Return it with every choice made: what was said, else the simplest that fits with it."""
        several = (self.processes or 1) > 1 or self.zero_stage is not None
        deepspeed = self.engine == "deepspeed" or several or self.offload not in (None, "none")
        stage = self.zero_stage
        if deepspeed and stage is None:
            stage = 3 if self.offload == "parameters" else 2
        return self.model_copy(
            update={
                "engine": "deepspeed" if deepspeed else "plain",
                "processes": self.processes or 1,
                "zero_stage": stage,
                "offload": self.offload or "none",
                "checkpoint_activations": bool(self.checkpoint_activations),
            }
        )


class RunSpec(Frozen):
    """One fine-tuning run, complete: nothing downstream defaults or guesses."""

    model: ModelSpec
    objective: Objective
    control: Control
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    steps: Steps
    batch_size: Annotated[int, Field(ge=1)]
    sequence_length: Annotated[int, Field(ge=4)]
    optimizer: Optimizer
    precision: Literal["fp32", "bf16"] = "fp32"
    probe: Probe
    execution: Execution = Execution()

    @model_validator(mode="after")
    def _cross_fields(self) -> RunSpec:
        kind, pretraining = self.objective.kind, self.model.source.pretraining
        if kind in PRETRAINING_OBJECTIVES and kind != pretraining:
            raise ValueError(
                f"objective {kind} does not fit model {self.model.name}, which was pretrained with"
                f" {pretraining}: use objective {pretraining} or pretraining"
            )
        if self.control.kind == "layer_clip" and self.optimizer.max_grad_norm is not None:
            raise ValueError(
                "layer_clip and max_grad_norm both clip the gradient: one owner, remove one"
            )
        if self.optimizer.warmup_steps >= self.steps:
            raise ValueError(
                f"warmup_steps {self.optimizer.warmup_steps} must be below steps {self.steps}"
            )
        if kind == "contrastive" and self.batch_size < 2:
            raise ValueError("contrastive needs batch_size of at least 2: negatives are in-batch")
        micro = self.execution.micro_batch_size
        if micro is not None and self.batch_size % micro:
            raise ValueError(f"micro_batch_size {micro} must divide batch_size {self.batch_size}")
        ranks = self.execution.processes or 1
        if self.batch_size % ((micro or 1) * ranks):
            raise ValueError(
                f"{ranks} processes must divide batch_size {self.batch_size}"
                + (f" into shares of whole micro-batches of {micro}" if micro else "")
            )
        if self.probe.every is not None and self.probe.every > self.steps:
            raise ValueError(f"probe.every {self.probe.every} is beyond steps {self.steps}")
        return self

    def identity(self) -> dict[str, Any]:
        """Return what decides the result, as plain JSON data."""
        return {
            "model": self.model.source.identity(),
            "objective": self.objective.identity(),
            "control": self.control.model_dump(mode="json"),
            "seed": self.seed,
            "steps": self.steps,
            "batch_size": self.batch_size,
            "sequence_length": self.sequence_length,
            "optimizer": self.optimizer.model_dump(mode="json"),
            "precision": self.precision,
            "probe": self.probe.identity(),
        }

    @cached_property
    def run_id(self) -> str:
        """First 12 hex digits of SHA-256 over the canonical JSON of the identity."""
        return content_id(self.identity())

    def model_copy(self, *, update: Any = None, deep: bool = False) -> RunSpec:
        """Return a copy with fields replaced, unvalidated as pydantic's; its run id is its own."""
        copy = super().model_copy(update=update, deep=deep)
        copy.__dict__.pop("run_id", None)
        return copy

    @property
    def micro_batch_size(self) -> int:
        """Sequences of one forward pass of one process."""
        share = self.batch_size // (self.execution.processes or 1)
        return self.execution.micro_batch_size or share

    @property
    def probe_steps(self) -> tuple[int, ...]:
        """Steps after which hidden states are compared: every k-th and always the last."""
        every = self.probe.every or self.steps
        return tuple(sorted({*range(every, self.steps + 1, every), self.steps}))

    def part_of(self, step: int) -> tuple[int, int]:
        """Return (first − 1, last) of the part that holds ``step``; the spec alone decides it."""
        size = self.execution.part_steps
        start = (step - 1) // size * size
        return start, min(start + size, self.steps)

    def describe(self) -> str:
        control = self.control.kind + (f"({self.control.setting})" if self.control.setting else "")
        return f"{self.model.name} {self.objective.kind} {control} seed {self.seed}"


def content_id(data: Any, length: int = 12) -> str:
    """Return the first hex digits of SHA-256 over canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def learning_rate(optimizer: Optimizer, step: int, steps: int) -> float:
    """Learning rate of ``step`` in 1..steps: linear warm-up, then the schedule.

    Warm-up reaches the peak at step ``warmup_steps + 1``; linear decay would reach zero one step
    after the last, so that every step moves the weights.
    """
    done = step - 1
    if done < optimizer.warmup_steps:
        return optimizer.learning_rate * (done + 1) / (optimizer.warmup_steps + 1)
    if optimizer.schedule == "constant":
        return optimizer.learning_rate
    remaining = (steps - done) / (steps - optimizer.warmup_steps)
    return optimizer.learning_rate * remaining
