"""The layer controls and their settings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sweeps.spec.frozen import Frozen, Positive, number_text

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


Control = Annotated[Standard | LayerClip | EqualStep, Field(discriminator="kind")]
