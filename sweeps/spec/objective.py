"""What the loss is, and the data it is taken on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, model_validator

from sweeps.spec.data_source import DataSource
from sweeps.spec.frozen import Frozen, Positive
from sweeps.spec.model_source import Pretraining
from sweeps.spec.plugin import Options, PluginCode

ObjectiveKind = Literal[
    "clm",
    "mlm",
    "span_corruption",
    "classification",
    "contrastive",
    "regression",
    "multi_label",
    "token_classification",
    "sft",
    "preference",
]
PRETRAINING_OBJECTIVES: tuple[str, ...] = get_args(Pretraining)
OBJECTIVES: tuple[str, ...] = get_args(ObjectiveKind)

# What a cell of a dataset is: ``stream`` any text, to be packed; ``text`` one with a word in it;
# ``dialogue`` a text or messages; ``prompt`` such a one that may be empty; ``messages`` a
# conversation with an answer; ``label`` a class; ``labels`` a list of those that apply, ``tags``
# one for each of the row's ``words``; ``number`` a float.
Cell = Literal[
    "stream",
    "text",
    "prompt",
    "dialogue",
    "messages",
    "label",
    "labels",
    "tags",
    "words",
    "number",
]
LABELLED: tuple[Cell, ...] = ("label", "labels", "tags")


@dataclass(frozen=True)
class Form:
    """One form that the rows of a kind of objective have: roles, and what a cell of each is."""

    roles: Mapping[str, Cell]
    optional: Mapping[str, Cell] = field(default_factory=dict)

    @property
    def cells(self) -> dict[str, Cell]:
        """Cells of all roles, optional ones included."""
        return {**self.roles, **self.optional}


_PACKED = (Form({"text": "stream"}),)
_PAIRABLE: dict[str, Cell] = {"text_pair": "text"}
# The first form of a kind is the usual one.
DATA_FORMS: dict[str, tuple[Form, ...]] = {
    "clm": _PACKED,
    "mlm": _PACKED,
    "span_corruption": _PACKED,
    "classification": (Form({"text": "text", "label": "label"}, _PAIRABLE),),
    "regression": (Form({"text": "text", "label": "number"}, _PAIRABLE),),
    "multi_label": (Form({"text": "text", "labels": "labels"}, _PAIRABLE),),
    "token_classification": (Form({"tokens": "words", "labels": "tags"}),),
    "contrastive": (Form({"anchor": "text", "positive": "text"}, {"negative": "text"}),),
    "sft": (
        Form({"prompt": "prompt", "completion": "dialogue"}),
        Form({"messages": "messages"}),
    ),
    "preference": (Form({"prompt": "prompt", "chosen": "dialogue", "rejected": "dialogue"}),),
}
# Those that compare the examples of a batch with each other, so that a part of one is no batch.
COMPARING: tuple[str, ...] = ("contrastive",)
# Those that predict the tokens of text, with the head that a model was pretrained with; those
# beside the pretraining objectives are for decoders.
ANSWERING: tuple[str, ...] = ("sft", "preference")
WITH_HEAD: tuple[str, ...] = (*PRETRAINING_OBJECTIVES, *ANSWERING)


# What a cell of a role is in an objective of the user's own: what it is where first met above.
_USUAL: dict[str, Cell] = {}
for _form in (form for forms in DATA_FORMS.values() for form in forms if forms is not _PACKED):
    for _role, _cell in _form.cells.items():
        _USUAL.setdefault(_role, _cell)


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
    bos: Literal["text", "sequence"] | None = Field(
        None,
        description="Whether the tokenizer's first token begins each text of packed ones, or each"
        " sequence that is cut of them; neither by default.",
    )
    temperature: Positive | None = None
    pooling: Literal["mean", "first", "last"] | None = None
    mask_duplicates: bool | None = Field(
        None, description="Whether what is the same as an anchor's own positive is no negative."
    )
    packing: Literal["none", "within", "across"] | None = Field(
        None,
        description="Whether examples share a sequence, each seeing itself alone (within) or all"
        " before it (across).",
    )
    beta: Positive | None = Field(None, description="How far a preference may pull, DPO's β.")
    read_roles: tuple[str, ...] = Field(
        (), description="What is read of the data, where that is not what its kind reads as a rule."
    )
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

    @model_validator(mode="after")
    def _of_one_form(self) -> Objective:
        form = form_of(self.kind, self.read_roles) if self.code is None else True
        if self.read_roles and form is None:
            raise ValueError(f"{self.kind} reads no rows of {', '.join(self.read_roles)}")
        return self

    @property
    def label(self) -> str:
        return self.name or self.kind

    @property
    def cells(self) -> dict[str, Cell]:
        """What each cell is that is read of a row, by role."""
        if self.code is not None:
            return {role: _USUAL.get(role, "text") for role in self.roles}
        form = form_of(self.kind, self.roles)
        assert form is not None
        return {role: form.cells[role] for role in self.roles}

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles of the columns that are read."""
        return self.read_roles or tuple(DATA_FORMS[self.kind][0].roles)

    @property
    def packed(self) -> bool:
        """Whether its examples are cut from text as it comes, or share sequences, so that all are
        of one length."""
        return DATA_FORMS.get(self.kind) == _PACKED or self.packing in ("within", "across")

    @property
    def sequences(self) -> int:
        """How many sequences of tokens an example is."""
        compared = [role for role in self.roles if role in _APART]
        return max(1, len(compared))

    def left_out(self, name: str) -> Any:
        """Return the default of the objective's kind, which is what ``None`` stands for."""
        if getattr(self, name) is None:
            return None
        return OBJECTIVE_DEFAULTS.get(self.kind, {}).get(name, super().left_out(name))


# Roles whose texts are sequences of their own, not parts of one.
_APART = ("anchor", "positive", "negative", "chosen", "rejected")


def form_of(kind: str, roles: tuple[str, ...]) -> Form | None:
    """Return the form of rows with just these roles; None where a kind has none."""
    for form in DATA_FORMS[kind]:
        if set(form.roles) <= set(roles) <= set(form.cells):
            return form
    return None


# An option at its default here is left out of the identity, so that an option that is added later
# renames no old run; a default must therefore never change (see ``Frozen.first_defaults``).
OBJECTIVE_DEFAULTS: dict[str, dict[str, Any]] = {
    "clm": {"bos": None},
    "mlm": {"mask_probability": 0.15},
    "span_corruption": {"mask_probability": 0.15, "mean_span": 3.0},
    "classification": {"labels": 2, "pooling": "mean"},
    "contrastive": {"temperature": 0.05, "pooling": "mean", "mask_duplicates": False},
    "regression": {"pooling": "mean"},
    "multi_label": {"labels": 2, "pooling": "mean"},
    "token_classification": {"labels": 2},
    "sft": {"packing": "none"},
    "preference": {"beta": 0.1},
}
