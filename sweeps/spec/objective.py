"""What the loss is, and the data it is taken on."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, model_validator

from sweeps.spec.data_source import DataSource
from sweeps.spec.frozen import Frozen, Positive
from sweeps.spec.model_source import Pretraining
from sweeps.spec.plugin import Options, PluginCode

ObjectiveKind = Literal["clm", "mlm", "span_corruption", "classification", "contrastive"]
PRETRAINING_OBJECTIVES: tuple[str, ...] = get_args(Pretraining)
OBJECTIVES: tuple[str, ...] = get_args(ObjectiveKind)


class Objective(Frozen):
    """What the loss is and the data it is taken on."""

    not_in_identity = frozenset({"name"})

    name: str | None = Field(
        None, description="What the sweep calls it, where that is not its kind; no identity."
    )
    kind: str
    data: DataSource
    mask_probability: Annotated[float, Field(gt=0, lt=1)] | None = None
    mean_span: Annotated[float, Field(ge=1, le=64)] | None = Field(
        None, description="Mean length in tokens of a span that is masked as one."
    )
    labels: Annotated[int, Field(ge=2)] | None = None
    label_names: tuple[str, ...] = Field(
        (), description="What the numbers of labels stand for, where the data has names."
    )
    temperature: Positive | None = None
    pooling: Literal["mean", "first", "last"] | None = None
    options: Options = Field(
        default_factory=dict, description="Those of a kind of the user's own, all of them."
    )
    code: PluginCode | None = Field(None, description="What a kind of the user's own is made by.")

    @model_validator(mode="after")
    def _kind_is_known(self) -> Objective:
        if (self.kind in OBJECTIVES) == (self.code is not None):
            own = "has no code" if self.code is None else "is depthsweep's own, and no plugin's"
            raise ValueError(f"objective {self.kind} {own}")
        return self

    @property
    def label(self) -> str:
        return self.name or self.kind

    def left_out(self, name: str) -> Any:
        """Return the default of the objective's kind, which is what ``None`` stands for."""
        if getattr(self, name) is None:
            return None
        return OBJECTIVE_DEFAULTS.get(self.kind, {}).get(name, super().left_out(name))


# An option at its default here is left out of the identity, so that an option that is added later
# renames no old run; a default must therefore never change (see ``Frozen.first_defaults``).
OBJECTIVE_DEFAULTS: dict[str, dict[str, Any]] = {
    "clm": {},
    "mlm": {"mask_probability": 0.15},
    "span_corruption": {"mask_probability": 0.15, "mean_span": 3.0},
    "classification": {"labels": 2, "pooling": "mean"},
    "contrastive": {"temperature": 0.05, "pooling": "mean"},
}
DATA_ROLES: dict[str, tuple[str, ...]] = {
    "clm": ("text",),
    "mlm": ("text",),
    "span_corruption": ("text",),
    "classification": ("text", "label"),
    "contrastive": ("anchor", "positive"),
}
