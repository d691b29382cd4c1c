"""The layer controls and their settings."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from sweeps.spec.frozen import Frozen, Positive, number_text
from sweeps.spec.plugin import Options, PluginCode, options_text

CONTROLS = ("standard", "layer_clip", "equal_step")


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
    """After each step every controlled layer has moved by the same ‖ΔW‖/‖W‖."""

    kind: Literal["equal_step"] = "equal_step"
    target: Literal["mean", "median"] | Positive = "mean"
    scope: Literal["blocks", "all"] = "blocks"

    @property
    def setting(self) -> str:
        target = self.target if isinstance(self.target, str) else number_text(self.target)
        return target if self.scope == "blocks" else f"{target},{self.scope}"


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
    | Annotated[PluginControl, Tag(PLUGIN_CONTROL)],
    Discriminator(_branch),
]
