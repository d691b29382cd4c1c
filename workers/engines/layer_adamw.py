"""AdamW whose step passes through a layer control, in the memory of plain AdamW.

The fused kernel is run on a zeroed scratch instead of the weights, so what it leaves there is the
update. A slab of the layer (weights, gradient, both moments, scratch) fits the processor's cache:
norms cost arithmetic, not another trip to memory. Where the update must wait for the norms of whole
layers, it is kept in the gradient's own memory, which AdamW no longer needs.

Traffic, in words a parameter: 4 read and 3 written as in fused AdamW; 1 written and 2 read more for
updates that wait; 1 read more where gradients are measured before they are used.

The owner of the weights may call ``step`` once, once a parameter group, or once a stretch of one:
gradients are held until the last call of a step, and then one pass serves every control.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sweeps import spec
from workers.controls.layer_control import LayerControl
from workers.controls.layer_groups import LayerGroup
from workers.engines.shards import Shard

# Elements of a slab: five float32 arrays of it stay in a CPU's second-level cache; on an
# accelerator slabs only bound the scratch, so they are as large as launches want.
CPU_SLAB = 1 << 16
DEVICE_SLAB = 1 << 26

GRADIENT, UPDATE, WEIGHT = 0, 1, 2


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
    """A run of pieces of one layer, together at most a scratch full; tensors are flat views."""

    pieces: list[tuple[int, int, int]]  # shard, first element, end
    weights: list[Tensor]
    first_moments: list[Tensor]
    second_moments: list[Tensor]
    updates: list[Tensor]
    steps: list[Tensor]
    scratch: Tensor


def _unshared(squares: Tensor) -> Tensor:
    return squares


def _nothing(call: int) -> None:
    del call


class LayerAdamW(torch.optim.Optimizer):
    """AdamW with one parameter group per layer group, stepping under a ``LayerControl``.

    Weights and gradients are float32. The learning rate is that of ``param_groups`` at the step.
    Until ``bind`` has said where the weights are, ``step`` does nothing.
    """

    def __init__(
        self, groups: Sequence[LayerGroup], control: LayerControl, optimizer: spec.Optimizer
    ) -> None:
        self.control = control
        self.record: LayerStep | None = None
        self._max_grad_norm = optimizer.max_grad_norm
        self._controlled = [i for i, group in enumerate(groups) if control.controls(group.kind)]
        self.layers: list[tuple[Shard, ...]] = []
        super().__init__(
            [{"params": list(group.parameters), "layer": group.layer} for group in groups],
            {
                "lr": optimizer.learning_rate,
                "betas": optimizer.betas,
                "eps": optimizer.eps,
                "weight_decay": optimizer.weight_decay,
            },
        )
        # The owner may show one group at a time as ``param_groups``.
        self.settings = list(self.param_groups)

    def bind(
        self,
        layers: Sequence[tuple[Shard, ...]],
        *,
        calls: int = 1,
        total: Callable[[Tensor], Tensor] | None = None,
        publish: Callable[[int], None] = _nothing,
        slab: int | None = None,
    ) -> None:
        """Step the weights of ``layers`` (one entry a group) from now on, with fresh moments.

        ``step`` will be called ``calls`` times a step; ``total`` sums a tensor over the ranks
        that hold other parts of the layers, if there are such; ``publish(c)`` repeats what the
        owner did after call ``c``, with weights that had not yet moved. ``slab`` is how many
        elements one may have, where it is not what suits the device.
        """
        self.layers = list(layers)
        self._calls, self._seen = calls, 0
        self._total = total if total is not None else _unshared
        self._publish = publish
        self._held: dict[Tensor, Tensor] = {}
        device = layers[0][0].weights.device
        limit = slab or (CPU_SLAB if device.type == "cpu" else DEVICE_SLAB)
        largest = max(sum(shard.weights.numel() for shard in layer) for layer in layers)
        self._scratch = torch.zeros(min(limit, largest), device=device)
        self._step = torch.zeros((), device=device)
        self._index = torch.tensor(self._controlled, device=device)
        for shard in (shard for layer in layers for shard in layer):
            for start, end in shard.padding:
                shard.weights.data[start:end] = 0
            self.state[shard.weights] = {
                "step": self._step,
                "exp_avg": torch.zeros_like(shard.weights),
                "exp_avg_sq": torch.zeros_like(shard.weights),
            }
        self._slabs = [list(self._cut(layer)) for layer in layers]

    def tensor(self, shard: Shard, name: str) -> Tensor:
        """Return the flat ``weights``, ``exp_avg`` or ``exp_avg_sq`` of a shard."""
        if name == "weights":
            return shard.weights.detach()
        moment: Tensor = self.state[shard.weights][name]
        return moment

    def held_beside_state(self) -> list[Tensor]:
        """Return what is kept from step to step and is no state of a shard."""
        return [self._scratch, self._step, self._index]

    @property
    def steps(self) -> int:
        """Steps taken."""
        return int(self._step)

    @steps.setter
    def steps(self, value: int) -> None:
        self._step.fill_(value)

    def _cut(self, layer: tuple[Shard, ...]) -> Iterator[_Slab]:
        """Cut a layer into slabs, with views of everything but the gradients."""
        room = self._scratch.numel()
        stretch: list[tuple[int, int, int]] = []
        for index, shard in enumerate(layer):
            start = 0
            while start < shard.weights.numel():
                end = min(shard.weights.numel(), start + room)
                stretch.append((index, start, end))
                room -= end - start
                start = end
                if not room:
                    yield self._slab(layer, stretch)
                    room, stretch = self._scratch.numel(), []
        if stretch:
            yield self._slab(layer, stretch)

    def _slab(self, layer: tuple[Shard, ...], pieces: list[tuple[int, int, int]]) -> _Slab:
        sizes = [end - start for _, start, end in pieces]
        scratch = self._scratch[: sum(sizes)]

        def views(name: str) -> list[Tensor]:
            return [self.state[layer[k].weights][name][a:e] for k, a, e in pieces]

        return _Slab(
            pieces=pieces,
            weights=[layer[k].weights.detach()[a:e] for k, a, e in pieces],
            first_moments=views("exp_avg"),
            second_moments=views("exp_avg_sq"),
            updates=list(torch.split(scratch, sizes)),
            steps=[self._step] * len(pieces),
            scratch=scratch,
        )

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take in gradients; on the last call of a step apply it and leave its ``record``.

        The gradients' values are used up.
        """
        assert closure is None
        if not self.layers:
            return
        self._seen += 1
        if self._calls > 1:
            # The owner drops each after its call; at the first call all are alive anyway.
            for group in self.param_groups:
                self._held |= {p: p.grad for p in group["params"] if p.grad is not None}
        if self._seen < self._calls:
            return
        self._seen = 0
        gradients = [self._gradients(i) for i in range(len(self.layers))]
        self._held.clear()
        self.record = self._apply(gradients)
        for call in range(self._calls - 1):
            self._publish(call)

    def _gradients(self, i: int) -> list[list[Tensor]]:
        """Return the flat gradient pieces of layer ``i``, slab by slab."""
        flat = []
        for shard in self.layers[i]:
            parts = [self._gradient(owner) for owner in shard.gradient_of]
            flat.append(parts[0] if len(parts) == 1 else torch.cat(parts))
            for start, end in shard.padding:
                flat[-1][start:end] = 0
        return [
            [flat[k] if e - a == flat[k].numel() else flat[k][a:e] for k, a, e in slab.pieces]
            for slab in self._slabs[i]
        ]

    def _gradient(self, owner: Tensor) -> Tensor:
        gradient = self._held.get(owner, owner.grad) if self._held else owner.grad
        if gradient is None:
            return torch.zeros_like(owner).view(-1)
        return gradient.reshape(-1)

    def _apply(self, gradients: list[list[list[Tensor]]]) -> LayerStep:
        self._step += 1
        squares = self._scratch.new_zeros((len(gradients), 3), dtype=torch.float64)
        coefficients = torch.ones(len(gradients), device=squares.device)
        clip = torch.ones((), device=squares.device)
        measured_first = self.control.scales_gradients or self._max_grad_norm is not None
        if measured_first:
            for i, slabs in enumerate(gradients):
                squares[i, GRADIENT] = _sum_squares([part for slab in slabs for part in slab])
            squares[:, GRADIENT] = self._total(squares[:, GRADIENT].clone())
            gradient_norms = squares[:, GRADIENT].sqrt().float()
            clip = self._gradient_factors(gradient_norms, coefficients)
        # The kernel divides the gradient by these as it reads it.
        divisors = (coefficients * clip).reciprocal().unbind() if measured_first else None
        for i, slabs in enumerate(gradients):
            waits = self.control.scales_updates and i in self._controlled
            found: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])
            for slab, gradient in zip(self._slabs[i], slabs, strict=True):
                self._make_update(i, slab, gradient, None if divisors is None else divisors[i])
                # After the kernel, whose arithmetic hides the fetching of what they read.
                if not measured_first:
                    found[GRADIENT].extend(_squares(gradient))
                found[UPDATE].extend(_squares([slab.scratch]))
                found[WEIGHT].extend(_squares(slab.weights))
                if waits:
                    torch._foreach_copy_(gradient, slab.updates)
                else:
                    torch._foreach_add_(slab.weights, slab.updates)
            for column, parts in enumerate(found):
                if parts:
                    squares[i, column] = torch.stack(parts).double().sum()
        if measured_first:
            squares[:, UPDATE:] = self._total(squares[:, UPDATE:].clone())
        else:
            squares = self._total(squares)
        if self.control.scales_updates:
            self._apply_waiting(gradients, squares, coefficients)
        return _record(squares.sqrt(), coefficients, clip, self.control.scales_updates)

    def _gradient_factors(self, norms: Tensor, coefficients: Tensor) -> Tensor:
        """Set the control's gradient factors; return that of the global clipping."""
        if self.control.scales_gradients:
            coefficients[self._index] = self.control.gradient_scale(norms[self._index])
        if self._max_grad_norm is None:
            return torch.ones((), device=norms.device)
        factor: Tensor = self._max_grad_norm / (norms.norm() + 1e-6)
        return factor.clamp(max=1.0)

    def _make_update(
        self, i: int, slab: _Slab, gradient: list[Tensor], divisor: Tensor | None
    ) -> None:
        """Advance the moments and leave −U of the slab in the scratch."""
        group = self.settings[i]
        slab.scratch.zero_()
        beta1, beta2 = group["betas"]
        torch._fused_adamw_(
            slab.updates,
            gradient,
            slab.first_moments,
            slab.second_moments,
            [],
            slab.steps,
            lr=group["lr"],
            beta1=beta1,
            beta2=beta2,
            weight_decay=0.0,
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
            grad_scale=divisor,
        )
        if group["weight_decay"]:
            decay = -group["lr"] * group["weight_decay"]
            torch._foreach_add_(slab.updates, slab.weights, alpha=decay)

    def _apply_waiting(
        self,
        gradients: list[list[list[Tensor]]],
        squares: Tensor,
        coefficients: Tensor,
    ) -> None:
        """Scale the updates kept in the gradients' memory and apply them."""
        norms = squares[self._index].sqrt().float()
        scale = self.control.update_scale(norms[:, UPDATE], norms[:, WEIGHT])
        coefficients[self._index] = scale
        for i, factor in zip(self._controlled, scale.tolist(), strict=True):
            for slab, update in zip(self._slabs[i], gradients[i], strict=True):
                torch._foreach_add_(slab.weights, update, alpha=factor)


def no_step(groups: int) -> LayerStep:
    """Return the record of a step that was not taken, for gradients that are not finite."""
    unknown = [math.nan] * groups
    return LayerStep(unknown, unknown, unknown, unknown, math.nan, math.nan)


def _squares(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """Return the squared norm of each tensor; none is larger than a slab, where float32 will do."""
    if tensors[0].device.type == "cpu":
        return [torch.dot(tensor, tensor) for tensor in tensors]
    return torch._foreach_pow(torch._foreach_norm(list(tensors)), 2.0)


def _sum_squares(tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(_squares(tensors))).double().sum()


def _record(norms: Tensor, coefficients: Tensor, clip: Tensor, scaled_updates: bool) -> LayerStep:
    """Return the record of norms (G, 3), with updates as they were applied."""
    if scaled_updates:
        norms[:, UPDATE] *= coefficients
    total = norms[:, GRADIENT].norm()
    rows = torch.cat([norms.T.flatten(), coefficients.double(), total[None], clip.double()[None]])
    values = rows.tolist()  # the one synchronisation with the device
    n = len(norms)
    return LayerStep(
        gradient_norms=values[:n],
        update_norms=values[n : 2 * n],
        weight_norms=values[2 * n : 3 * n],
        coefficients=values[3 * n : 4 * n],
        total_gradient_norm=values[-2],
        clip_coefficient=values[-1],
    )
