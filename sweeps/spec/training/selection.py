"""Which examples of each batch of candidates a step trains on, and the settings of that."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Discriminator, Field, Tag, model_validator

from sweeps.spec.frozen import Frozen, number_text
from sweeps.spec.plugin import Options, PluginCode, options_text

Share = Annotated[
    float,
    Field(
        gt=0,
        lt=1,
        description="Of the candidates so large a share is trained on: of batch_size / share"
        " candidates, batch_size.",
    ),
]
LossWithin = Annotated[
    Annotated[float, Field(gt=0, allow_inf_nan=False)] | None,
    Field(
        description="Only candidates whose loss is within so many standard deviations of the"
        " batch's mean are chosen from; null: all."
    ),
]


class All(Frozen):
    """Every example of a batch, as it comes: no selection."""

    kind: Literal["all"] = "all"

    @property
    def setting(self) -> str:
        return ""


class Random(Frozen):
    """Any of the candidates."""

    kind: Literal["random"] = "random"
    share: Share = 0.2

    @property
    def setting(self) -> str:
        return _said(self.share)


class _ByGradient(Frozen):
    share: Share = 0.2
    loss_within: LossWithin = 1.0

    @property
    def setting(self) -> str:
        return _said(self.share, self.loss_within)


class Low(_ByGradient):
    """Those whose gradients are smallest."""

    kind: Literal["low"] = "low"


class Moderate(_ByGradient):
    """Those whose gradients are nearest the median."""

    kind: Literal["moderate"] = "moderate"


class High(_ByGradient):
    """Those whose gradients are largest."""

    kind: Literal["high"] = "high"


class LengthMatched(_ByGradient):
    """Any that are as long as those of ``high``, and are none of them."""

    kind: Literal["length_matched"] = "length_matched"

    @model_validator(mode="after")
    def _has_others(self) -> LengthMatched:
        if self.share > 0.5:
            raise ValueError(
                "length_matched takes candidates that high leaves, of which there are enough up to"
                " share 0.5"
            )
        return self


def _said(share: float, loss_within: float | None = 1.0) -> str:
    said = [] if share == 0.2 else [number_text(share)]
    if loss_within is None:
        said.append("any loss")
    elif loss_within != 1.0:
        said.append(f"loss within {number_text(loss_within)}")
    return ",".join(said)


SELECTION_KINDS: dict[str, type[Frozen]] = {
    one.model_fields["kind"].default: one
    for one in get_args(All | Random | LengthMatched | Low | Moderate | High)
}
SELECTIONS = tuple(SELECTION_KINDS)


class PluginSelection(Frozen):
    """A selection of a user's own, with all of its options but the share."""

    kind: str
    share: Share = 0.2
    options: Options = Field(default_factory=dict)
    code: PluginCode

    @property
    def setting(self) -> str:
        own = options_text(self.options)
        return ",".join(filter(None, (_said(self.share), own)))


# What pydantic calls the branch of a selection that is none of depthsweep's own.
PLUGIN_SELECTION = "plugin selection"


def _branch(value: Any) -> str | None:
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return kind if kind in SELECTIONS or kind is None else PLUGIN_SELECTION


Selection = Annotated[
    Annotated[All, Tag("all")]
    | Annotated[Random, Tag("random")]
    | Annotated[LengthMatched, Tag("length_matched")]
    | Annotated[Low, Tag("low")]
    | Annotated[Moderate, Tag("moderate")]
    | Annotated[High, Tag("high")]
    | Annotated[PluginSelection, Tag(PLUGIN_SELECTION)],
    Discriminator(_branch),
]


def candidates_of(selection: Selection, batch_size: int) -> int:
    """Return of how many examples a step's batch is chosen.

    Raises ValueError where the share gives no whole number.
    """
    if isinstance(selection, All):
        return batch_size
    candidates = batch_size / selection.share
    if abs(candidates - round(candidates)) > 1e-6 * candidates:
        raise ValueError(
            f"selection {selection.kind}: {batch_size} are no share {number_text(selection.share)}"
            f" of a whole number of candidates ({candidates:.2f}); change batch_size or share, as"
            f" to {batch_size}/{round(candidates)}"
        )
    return round(candidates)
