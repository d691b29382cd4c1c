"""AdamW whose step passes through a layer control, in the memory of plain AdamW.

The fused kernel is run on a zeroed scratch instead of the weights, so what it leaves there is the
update. A slab of the layer (weights, gradient, both moments, scratch) fits the processor's cache:
norms cost arithmetic, not another trip to memory. Where the update must wait for the norms of whole
layers, it is kept in the gradient's own memory, which AdamW no longer needs.

Traffic, in words a parameter: 4 read and 3 written as in fused AdamW; 1 written and 2 read more for
updates that wait; 1 read (and 1 written where it clips) more for gradient scaling.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sweeps import spec
from workers.controls.layer_control import LayerControl
from workers.controls.layer_groups import LayerGroup

# Elements of a slab: five float32 arrays of it stay in a CPU's second-level cache; on an
# accelerator slabs only bound the scratch, so they are as large as launches want.
CPU_SLAB = 1 << 16
DEVICE_SLAB = 1 << 26


@dataclass(frozen=True)
class LayerStep:
    """What one step did, one entry per layer group in forward order, all of shape (G,)."""

    gradient_norms: list[float]
    weight_norms: list[float]
    update_norms: list[float]
    coefficients: list[float]
    total_gradient_norm: float
    clip_coefficient: float


@dataclass
class _Slab:
    """A run of pieces of one group, together at most a scratch full; tensors are flat views."""

    pieces: list[tuple[int, int, int]]  # parameter, first element, end
    weights: list[Tensor]
    first_moments: list[Tensor]
    second_moments: list[Tensor]
    updates: list[Tensor]
    size: int


class LayerAdamW(torch.optim.Optimizer):
    """AdamW with one parameter group per layer group, stepping under a ``LayerControl``.

    Weights and gradients are float32. The learning rate is that of ``param_groups`` at the step.
    """

    def __init__(
        self, groups: Sequence[LayerGroup], control: LayerControl, optimizer: spec.Optimizer
    ) -> None:
        self.control = control
        self._max_grad_norm = optimizer.max_grad_norm
        self._controlled = [i for i, group in enumerate(groups) if control.controls(group.kind)]
        super().__init__(
            [{"params": list(group.parameters), "layer": group.layer} for group in groups],
            {
                "lr": optimizer.learning_rate,
                "betas": optimizer.betas,
                "eps": optimizer.eps,
                "weight_decay": optimizer.weight_decay,
            },
        )
        device = groups[0].parameters[0].device
        self._index = torch.tensor(self._controlled, device=device)
        limit = CPU_SLAB if device.type == "cpu" else DEVICE_SLAB
        largest = max(sum(p.numel() for p in group.parameters) for group in groups)
        self._scratch = torch.zeros(min(limit, largest), device=device)
        self._step = torch.zeros((), device=device)
        self._slabs = [list(self._cut(group["params"])) for group in self.param_groups]
        slabs = [(i, slab) for i, of_group in enumerate(self._slabs) for slab in of_group]
        self._group_of_slab = torch.tensor([i for i, _ in slabs], device=device)
        self._group_of_piece = torch.tensor(
            [i for i, slab in slabs for _ in slab.pieces], device=device
        )

    def _cut(self, parameters: list[Tensor]) -> Iterator[_Slab]:
        """Cut a group into slabs, with views of everything but the gradients."""
        slab = _Slab([], [], [], [], [], 0)
        for index, parameter in enumerate(parameters):
            state = self.state[parameter]
            state["step"] = self._step
            state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.contiguous_format)
            state["exp_avg_sq"] = torch.zeros_like(state["exp_avg"])
            start = 0
            while start < parameter.numel():
                end = min(parameter.numel(), start + self._scratch.numel() - slab.size)
                slab.pieces.append((index, start, end))
                slab.weights.append(parameter.detach().view(-1)[start:end])
                slab.first_moments.append(state["exp_avg"].view(-1)[start:end])
                slab.second_moments.append(state["exp_avg_sq"].view(-1)[start:end])
                slab.updates.append(self._scratch[slab.size : slab.size + end - start])
                slab.size += end - start
                start = end
                if slab.size == self._scratch.numel():
                    yield slab
                    slab = _Slab([], [], [], [], [], 0)
        if slab.size:
            yield slab

    @torch.no_grad()
    def step(self, closure: None = None) -> LayerStep:  # type: ignore[override]
        """Apply one step from the gradients in place; the gradients' values are used up."""
        assert closure is None
        self._step += 1
        gradients = [self._gradients(i) for i in range(len(self.param_groups))]
        gradient_norms = self._scratch.new_zeros(len(self.param_groups))
        coefficients = torch.ones_like(gradient_norms)
        clip = torch.ones((), device=gradient_norms.device)
        measured_first = self.control.scales_gradients or self._max_grad_norm is not None
        parts: dict[str, list[Tensor]] = {"gradient": [], "update": [], "weight": []}
        if measured_first:
            pieces = [piece for slabs in gradients for slab in slabs for piece in slab]
            gradient_norms = self._by_group(torch._foreach_norm(pieces), self._group_of_piece)
            clip = self._scale_gradients(gradients, gradient_norms, coefficients)
        for i, slabs in enumerate(gradients):
            waits = self.control.scales_updates and i in self._controlled
            for slab, gradient in zip(self._slabs[i], slabs, strict=True):
                if not measured_first:
                    parts["gradient"] += torch._foreach_norm(gradient)
                self._make_update(i, slab, gradient)
                filled = self._scratch[: slab.size]
                parts["update"].append(torch.linalg.vector_norm(filled))
                parts["weight"] += torch._foreach_norm(slab.weights)
                if waits:
                    torch._foreach_copy_(gradient, slab.updates)
                else:
                    torch._foreach_add_(slab.weights, slab.updates)
        if not measured_first:
            gradient_norms = self._by_group(parts["gradient"], self._group_of_piece)
        update_norms = self._by_group(parts["update"], self._group_of_slab)
        weight_norms = self._by_group(parts["weight"], self._group_of_piece)
        if self.control.scales_updates:
            self._apply_waiting(gradients, update_norms, weight_norms, coefficients)
            update_norms = update_norms * coefficients
        return _record(gradient_norms, weight_norms, update_norms, coefficients, clip)

    def _by_group(self, norms: list[Tensor] | tuple[Tensor, ...], group: Tensor) -> Tensor:
        """Return the norm of each group, (G,), from norms of its parts.

        The parts are no larger than a slab, where a float32 norm is still exact; they are added in
        float64.
        """
        squares = torch.stack(list(norms)).double().square()
        total = squares.new_zeros(len(self.param_groups)).index_add_(0, group, squares)
        return total.sqrt().float()

    def _gradients(self, i: int) -> list[list[Tensor]]:
        """Return the flat gradient pieces of group ``i``, slab by slab."""
        flat = []
        for parameter in self.param_groups[i]["params"]:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            elif not parameter.grad.is_contiguous():
                parameter.grad = parameter.grad.contiguous()
            flat.append(parameter.grad.view(-1))
        return [
            [flat[k] if e - a == flat[k].numel() else flat[k][a:e] for k, a, e in slab.pieces]
            for slab in self._slabs[i]
        ]

    def _scale_gradients(
        self, gradients: list[list[list[Tensor]]], norms: Tensor, coefficients: Tensor
    ) -> Tensor:
        """Apply the control's gradient factors and the global clipping; return the latter's."""
        if self.control.scales_gradients:
            coefficients[self._index] = self.control.gradient_scale(norms[self._index])
        clip = torch.ones((), device=norms.device)
        if self._max_grad_norm is not None:
            clip = (self._max_grad_norm / (norms.norm() + 1e-6)).clamp(max=1.0)
        for factor, slabs in zip((coefficients * clip).tolist(), gradients, strict=True):
            if factor != 1.0:
                for gradient in slabs:
                    torch._foreach_mul_(gradient, factor)
        return clip

    def _make_update(self, i: int, slab: _Slab, gradient: list[Tensor]) -> None:
        """Advance the moments and leave −U of the slab in the scratch."""
        group = self.param_groups[i]
        self._scratch[: slab.size].zero_()
        beta1, beta2 = group["betas"]
        torch._fused_adamw_(
            slab.updates,
            gradient,
            slab.first_moments,
            slab.second_moments,
            [],
            [self._step] * len(slab.pieces),
            lr=group["lr"],
            beta1=beta1,
            beta2=beta2,
            weight_decay=0.0,
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )
        if group["weight_decay"]:
            decay = -group["lr"] * group["weight_decay"]
            torch._foreach_add_(slab.updates, slab.weights, alpha=decay)

    def _apply_waiting(
        self,
        gradients: list[list[list[Tensor]]],
        update_norms: Tensor,
        weight_norms: Tensor,
        coefficients: Tensor,
    ) -> None:
        """Scale the updates kept in the gradients' memory and apply them."""
        coefficients[self._index] = self.control.update_scale(
            update_norms[self._index], weight_norms[self._index]
        )
        factors = coefficients.tolist()
        for i in self._controlled:
            for slab, update in zip(self._slabs[i], gradients[i], strict=True):
                torch._foreach_add_(slab.weights, update, alpha=factors[i])


def _record(
    gradient_norms: Tensor,
    weight_norms: Tensor,
    update_norms: Tensor,
    coefficients: Tensor,
    clip: Tensor,
) -> LayerStep:
    total = gradient_norms.double().norm()
    columns = [gradient_norms, weight_norms, update_norms, coefficients]
    rows = torch.cat([*(column.double() for column in columns), total[None], clip.double()[None]])
    values = rows.tolist()  # the one synchronisation with the device
    n = len(gradient_norms)
    return LayerStep(
        gradient_norms=values[:n],
        weight_norms=values[n : 2 * n],
        update_norms=values[2 * n : 3 * n],
        coefficients=values[3 * n : 4 * n],
        total_gradient_norm=values[-2],
        clip_coefficient=values[-1],
    )
