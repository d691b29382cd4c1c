"""The layer controls and their settings."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, get_args

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from sweeps.spec.frozen import Frozen, Positive, content_id, number_text
from sweeps.spec.plugin import Options, PluginCode, options_text

Scope = Literal["blocks", "all"]
# Of longer lists a line shows what tells them apart.
SHOWN = 6


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
        return number_text(self.max_norm)


class EqualStep(Frozen):
    """After each step everything that is controlled has moved by the same ‖ΔW‖/‖W‖.

    ``target`` is what by: the ``mean`` or ``median`` of the ratios that the optimizer's own steps
    have, the ``budget`` that keeps the size of the whole step, the scheduled ``learning_rate``, or
    a number, which then ignores learning rate and schedule. ``unit`` is what has one ratio.
    """

    kind: Literal["equal_step"] = "equal_step"
    target: Literal["mean", "median", "budget", "learning_rate"] | Positive = "mean"
    unit: Literal["block", "matrix"] = "block"
    scope: Scope = "blocks"

    @field_validator("target", mode="before")
    @classmethod
    def _positive(cls, value: Any) -> Any:
        """Say what a number has to be; of a union pydantic says that it is none of the words."""
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if number and not 0 < value < math.inf:
            raise ValueError(f"a number has to be positive, greater than 0; found {value!r}")
        return value

    @property
    def relative(self) -> bool:
        """Whether the ratios of single matrices decide by what the others move."""
        return self.unit == "matrix" and self.target in ("mean", "median", "budget")

    @property
    def setting(self) -> str:
        target = self.target if isinstance(self.target, str) else number_text(self.target)
        said = [target, *(["matrix"] if self.unit == "matrix" else [])]
        return ",".join(said if self.scope == "blocks" else [*said, self.scope])


class LayerRates(Frozen):
    """Each layer's step is multiplied by a number of its own.

    ``rates`` has one a block, in forward order (with scope all the embedding's before and the
    head's after them), or is ``rgn``: relative gradient norms over five batches before training, as
    shares of the largest (Lee et al. 2023, arXiv 2210.11466). ``decay`` to the power of L − l is
    that of block l of L.
    """

    kind: Literal["layer_rates"] = "layer_rates"
    rates: (
        tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...] | Literal["rgn"] | None
    ) = None
    decay: Positive | None = None
    scope: Scope = "blocks"

    @model_validator(mode="after")
    def _does_something(self) -> LayerRates:
        if (self.rates is None) == (self.decay is None):
            raise ValueError("give a list of rates, rgn, or a decay: one of them")
        if self.decay == 1 or (isinstance(self.rates, tuple) and set(self.rates) <= {1.0}):
            raise ValueError("multiplying every layer by 1 does nothing; use standard")
        if isinstance(self.rates, tuple) and set(self.rates) == {0.0}:
            raise ValueError("of a layer that is multiplied by 0 nothing is trained; use freeze")
        return self

    def require_blocks(self, blocks: int) -> None:
        """Raise ValueError where a list has not one rate for each of a model's layers."""
        wanted = blocks if self.scope == "blocks" else blocks + 2
        if isinstance(self.rates, tuple) and len(self.rates) != wanted:
            more = "" if self.scope == "blocks" else ", and embedding and head"
            raise ValueError(
                f"layer_rates has {len(self.rates)} rates, and the model has {blocks}"
                f" blocks{more}: give {wanted}"
            )

    @property
    def setting(self) -> str:
        if self.decay is not None:
            said = f"decay {number_text(self.decay)}"
        elif isinstance(self.rates, tuple):
            said = " ".join(number_text(rate) for rate in self.rates)
            if len(self.rates) > SHOWN:
                said = f"{len(self.rates)} rates {content_id(self.rates, 6)}"
        else:
            said = str(self.rates)
        return said if self.scope == "blocks" else f"{said},{self.scope}"


CONTROL_KINDS: dict[str, type[Frozen]] = {
    one.model_fields["kind"].default: one
    for one in get_args(Standard | LayerClip | EqualStep | LayerRates)
}
CONTROLS = tuple(CONTROL_KINDS)


class PluginControl(Frozen):
    """A control of a user's own, with all of its options."""

    kind: str
    options: Options = Field(default_factory=dict)
    code: PluginCode

    @property
    def setting(self) -> str:
        return options_text(self.options)


# What pydantic calls the branch of a control that is none of depthsweep's own.
PLUGIN_CONTROL = "plugin control"


def _branch(value: Any) -> str | None:
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return kind if kind in CONTROLS or kind is None else PLUGIN_CONTROL


Control = Annotated[
    Annotated[Standard, Tag("standard")]
    | Annotated[LayerClip, Tag("layer_clip")]
    | Annotated[EqualStep, Tag("equal_step")]
    | Annotated[LayerRates, Tag("layer_rates")]
    | Annotated[PluginControl, Tag(PLUGIN_CONTROL)],
    Discriminator(_branch),
]
