"""What a layer control is: two rules over one vector of norms each.

A control never sees weights, shards or a ZeRO stage. The engine measures the norm of every
controlled layer's gradient, asks for the factors, applies them; then the same for the update the
optimizer would make. Writing a new control is writing one subclass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from sweeps.errors import UserError
from workers.controls.layer_groups import LayerGroup
from workers.depth.stacks import Stack


class LayerControl:
    """A rule that scales each layer's gradient before the step, or its update before it is applied.

    All vectors are float32 of shape (C,), one entry per controlled layer group in forward order;
    norms are Frobenius norms over all parameters of the group together. Where ``unit`` is matrix
    there is one entry per parameter of these groups instead: for updates, not for gradients.

    ``scales_gradients`` and ``scales_updates`` say which of the two methods does something. All
    layers are measured before any is applied, so a rule may read other layers' norms.
    ``learning_rate`` is the scheduled one of the step, set before ``update_scale`` is asked.
    ``batches`` says of how many batches before training the rule is shown gradients by ``learn``.
    """

    scales_gradients = False
    scales_updates = False
    unit: Literal["block", "matrix"] = "block"
    learning_rate = 0.0
    batches = 0
    # Of a user's own: how it is called, and the file and line where it is marked.
    plugin_place = ""

    def prepare(self, groups: Sequence[LayerGroup], stacks: Sequence[Stack]) -> None:
        """Look at a model's layer groups and stacks, once, before it is trained; raise UserError
        where the rule does not fit them."""

    def learn(self, gradient_norms: Tensor, weight_norms: Tensor) -> None:
        """Look at norms before training, each (B, C) of B batches, at the weights of the start."""

    def gradient_scale(self, gradient_norms: Tensor) -> Tensor:
        """Return the factor on each layer's fully accumulated, averaged, unscaled gradient."""
        return torch.ones_like(gradient_norms)

    def update_scale(self, update_norms: Tensor, weight_norms: Tensor) -> Tensor:
        """Return the factor on each layer's update U (W ← W − U, weight decay included)."""
        del weight_norms
        return torch.ones_like(update_norms)

    def controls(self, kind: str) -> bool:
        """Return whether groups of this kind (embedding, block, head) are controlled."""
        del kind
        return True


def checked_factors(control: LayerControl, method: str, factors: object, norms: Tensor) -> Tensor:
    """Return the factors that a method of a control gave for ``norms``, (C,).

    Raises UserError, naming the control, for what would be broadcast, cut or no number: any tensor
    but a float one of shape (C,), and of a user's own one that is not finite where the norms are.
    """
    said = control.plugin_place or type(control).__name__
    if not isinstance(factors, Tensor):
        wrong = f"returns a {type(factors).__name__}"
    elif factors.shape != norms.shape or not factors.is_floating_point():
        kind = str(factors.dtype).removeprefix("torch.")
        wrong = f"returns a tensor of shape {tuple(factors.shape)} and type {kind}"
    elif (
        control.plugin_place and not bool(factors.isfinite().all()) and bool(norms.isfinite().all())
    ):
        wrong = "returns a factor that is not finite"
    else:
        return factors
    raise UserError(
        f"{said}: {method} {wrong}: it has to return a finite factor for each of"
        f" {len(norms)} {'layers' if control.unit == 'block' else 'matrices'}, floats of shape"
        f" ({len(norms)},)"
    )


class Standard(LayerControl):
    """No control: every layer steps as the optimizer says."""
