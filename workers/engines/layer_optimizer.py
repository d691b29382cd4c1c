"""An optimizer whose step passes through a layer control, in the memory of torch's own.

A rule makes the update on a zeroed scratch instead of the weights. A slab of the layer (weights,
gradient, what the rule keeps, scratch) fits the processor's cache: norms cost arithmetic, not
another trip to memory. Where the update must wait for the norms of whole layers, it is kept in the
gradient's own memory, which the rule no longer needs.

Traffic of AdamW, in words a parameter: 4 read and 3 written as in the fused kernel; 1 written and 2
read more for updates that wait; 1 read more where gradients are measured before they are used.

The owner of the weights may call ``step`` once, once a parameter group, or once a stretch of one:
gradients are held until the last call of a step, and then one pass serves every control.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from sweeps import spec
from workers.controls.layer_control import LayerControl, checked_factors
from workers.controls.layer_groups import LayerGroup
from workers.engines.layer_step import GRADIENT, UPDATE, WEIGHT, LayerStep, record_of
from workers.updates.decay import decaying
from workers.updates.registry import build_rule
from workers.updates.shards import Shard
from workers.updates.slabs import CPU_SLAB, DEVICE_SLAB, Layer, cut
from workers.updates.update_rule import Slab


def _unshared(squares: Tensor) -> Tensor:
    return squares


def _nothing(call: int) -> None:
    del call


# Of one slab: scalars of ``found`` for gradients, updates and weights.
Places = tuple[list[Tensor], list[Tensor], list[Tensor]]


class LayerOptimizer(torch.optim.Optimizer):
    """A rule with one parameter group per layer group, stepping under a ``LayerControl``.

    Weights and gradients are float32. The learning rate is that of ``param_groups`` at the step.
    Until ``bind`` has said where the weights are, ``step`` does nothing.
    """

    def __init__(
        self, groups: Sequence[LayerGroup], control: LayerControl, optimizer: spec.Optimizer
    ) -> None:
        self.control = control
        self.rule = build_rule(optimizer)
        self.record: LayerStep | None = None
        self._max_grad_norm = optimizer.max_grad_norm
        self._weight_decay = optimizer.weight_decay
        self._kinds = [group.kind for group in groups]
        self._shapes = [[p.shape for p in group.parameters] for group in groups]
        self._decays = [decaying(group.names, group.parameters, optimizer) for group in groups]
        self._controlled = [i for i, group in enumerate(groups) if control.controls(group.kind)]
        self._by_parameter = control.unit == "matrix"
        if self._by_parameter and control.scales_gradients:
            raise ValueError("a control that scales gradients does so by layer: unit is block")
        self._measures = False
        self.layers: list[tuple[Shard, ...]] = []
        super().__init__(
            [{"params": list(group.parameters), "layer": group.layer} for group in groups],
            {"lr": optimizer.learning_rate},
        )
        # The owner may show one group at a time as ``param_groups``.
        self.settings = list(self.param_groups)

    def bind(
        self,
        layers: Sequence[tuple[Shard, ...]],
        *,
        rank: int = 0,
        calls: int = 1,
        total: Callable[[Tensor], Tensor] | None = None,
        publish: Callable[[int], None] = _nothing,
        slab: int | None = None,
    ) -> None:
        """Step the weights of ``layers`` (one entry a group) from now on, from a fresh state.

        ``rank`` says which pieces of the shards are held here. ``step`` will be called ``calls``
        times a step; ``total`` sums a tensor over the ranks that hold other parts of the layers, if
        there are such; ``publish(c)`` repeats what the owner did after call ``c``, with weights
        that had not yet moved. ``slab`` is how many elements one may have, where it is not what
        suits the device.
        """
        self.layers = list(layers)
        self._calls, self._seen = calls, 0
        self._total = total if total is not None else _unshared
        self._publish = publish
        self._held: dict[Tensor, Tensor] = {}
        device = layers[0][0].weights.device
        self._limit = slab or (CPU_SLAB if device.type == "cpu" else DEVICE_SLAB)
        largest = max(sum(shard.weights.numel() for shard in layer) for layer in layers)
        room = min(self._limit, largest)
        if self.rule.whole_matrices:
            room = max(room, *(s.weights.numel() for layer in layers for s in layer))
        self._scratch = torch.zeros(room, device=device)
        self._step = torch.zeros((), device=device)
        self._firsts = firsts = self._first_units()
        self._group_of = torch.tensor(self._groups_of_units(firsts), device=device)
        controlled = torch.isin(self._group_of, torch.tensor(self._controlled, device=device))
        self._index = controlled.nonzero().flatten()
        self._slabs: list[list[Slab]] = []
        self._units: list[Tensor] = []
        for i, shards in enumerate(layers):
            for shard in shards:
                for start, end in shard.padding:
                    shard.weights.data[start:end] = 0
                self.state[shard.weights] = {"step": self._step, **self._fresh(i, shard)}
            layer = self._layer(i, shards, firsts[i])
            self._slabs.append(list(cut(layer, rank, self._scratch, self._step)))
            units = [unit for slab in self._slabs[i] for unit in slab.units]
            self._units.append(torch.tensor(units, device=device))
        self._found = torch.zeros((sum(map(len, self._units)), 3), device=device)
        self._places = self._found_places()

    def _first_units(self) -> list[int]:
        """Return the number of each group's first unit: of a parameter, or of the group itself."""
        if not self._by_parameter:
            return list(range(len(self._kinds)))
        sizes = [len(shapes) for shapes in self._shapes]
        return [sum(sizes[:i]) for i in range(len(sizes))]

    def _groups_of_units(self, firsts: Sequence[int]) -> list[int]:
        if not self._by_parameter:
            return list(firsts)
        return [i for i, shapes in enumerate(self._shapes) for _ in shapes]

    def _found_places(self) -> list[list[Places]]:
        """Return of each slab where the squared norms of its pieces are put, by column: those of
        gradients, of updates (one for all, but by parameter) and of weights."""
        places, row = [], 0
        for slabs in self._slabs:
            of_group = []
            for slab in slabs:
                columns = self._found[row : row + len(slab.units)].unbind(1)
                gradients, updates, weights = (list(column.unbind()) for column in columns)
                of_group.append(
                    (gradients, updates if self._by_parameter else updates[:1], weights)
                )
                row += len(slab.units)
            places.append(of_group)
        return places

    def _fresh(self, i: int, shard: Shard) -> dict[str, Tensor]:
        """Return what the rule keeps of a shard, zero."""
        shape = shard.weights.shape
        if self.rule.whole_matrices:
            shape = self._shapes[i][shard.pieces[0][0].parameter]
        shapes = self.rule.shapes(shape, self._kinds[i])
        return {name: shard.weights.new_zeros(size) for name, size in shapes.items()}

    def _layer(self, i: int, shards: tuple[Shard, ...], unit: int) -> Layer:
        kept = [{k: t for k, t in self.state[s.weights].items() if k != "step"} for s in shards]
        return Layer(
            kind=self._kinds[i],
            shards=shards,
            held=kept,
            shapes=self._shapes[i],
            decays=self._decays[i],
            unit=unit,
            by_parameter=self._by_parameter,
            whole_matrices=self.rule.whole_matrices,
        )

    def tensor(self, shard: Shard, name: str) -> Tensor | None:
        """Return the ``weights`` of a shard or what the rule keeps of it; None where it does not.

        They are flat, but for what a rule of whole matrices keeps.
        """
        if name == "weights":
            return shard.weights.detach()
        kept: Tensor | None = self.state[shard.weights].get(name)
        return kept

    def held_beside_state(self) -> list[Tensor]:
        """Return what is kept from step to step and is no state of a shard."""
        return [
            *(self._scratch, self._step, self._found),
            *(self._index, self._group_of, *self._units),
        ]

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Surround a ``step`` that moves nothing: its record has the norms of gradients and
        weights, and updates of nought."""
        self._measures = True
        try:
            yield
        finally:
            self._measures = False

    @property
    def steps(self) -> int:
        """Steps taken."""
        return int(self._step)

    @steps.setter
    def steps(self, value: int) -> None:
        self._step.fill_(value)

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
        cut = [
            [flat[k] if e - a == flat[k].numel() else flat[k][a:e] for k, a, e in slab.pieces]
            for slab in self._slabs[i]
        ]
        if not self.rule.whole_matrices:
            return cut
        return [
            [piece.view(like.shape) for piece, like in zip(pieces, slab.weights, strict=True)]
            for pieces, slab in zip(cut, self._slabs[i], strict=True)
        ]

    def _gradient(self, owner: Tensor) -> Tensor:
        gradient = self._held.get(owner, owner.grad) if self._held else owner.grad
        if gradient is None:
            return torch.zeros_like(owner).view(-1)
        return gradient.reshape(-1)

    def _apply(self, gradients: list[list[list[Tensor]]]) -> LayerStep:
        coefficients = torch.ones(len(self._group_of), device=self._scratch.device)
        clip = torch.ones((), device=coefficients.device)
        self._found.zero_()
        if self._measures:
            self._measure(gradients, (GRADIENT, WEIGHT))
            return self._record(self._total(self._sums()), coefficients, clip)
        self._step += 1
        measured_first = self.control.scales_gradients or self._max_grad_norm is not None
        if measured_first:
            self._measure(gradients, (GRADIENT,))
            gradient_squares = self._total(self._sums()[:, GRADIENT].clone())
            clip = self._gradient_factors(gradient_squares.sqrt().float(), coefficients)
        # A kernel divides the gradient by these as it reads it.
        divisors = (coefficients * clip).reciprocal() if measured_first else None
        for i, slabs in enumerate(gradients):
            waits = self.control.scales_updates and i in self._controlled
            divisor = None if divisors is None else divisors[self._firsts[i]]
            for slab, places, gradient in zip(self._slabs[i], self._places[i], slabs, strict=True):
                self._make_update(i, slab, gradient, divisor)
                # After the kernel, whose arithmetic hides the fetching of what they read.
                if not measured_first:
                    self._put_squares(places[GRADIENT], gradient)
                updates = slab.updates if self._by_parameter else [slab.scratch]
                self._put_squares(places[UPDATE], updates)
                self._put_squares(places[WEIGHT], slab.weights)
                if waits:
                    torch._foreach_copy_(gradient, slab.updates)
                else:
                    torch._foreach_add_(slab.weights, slab.updates)
        squares = self._sums()
        if measured_first:
            squares[:, UPDATE:] = self._total(squares[:, UPDATE:].clone())
            squares[:, GRADIENT] = gradient_squares
        else:
            squares = self._total(squares)
        if self.control.scales_updates:
            self._apply_waiting(gradients, squares, coefficients)
        return self._record(squares, coefficients, clip)

    def _measure(self, gradients: list[list[list[Tensor]]], columns: tuple[int, ...]) -> None:
        """Put squared norms of gradients and weights, as ``columns`` say, before any update."""
        for i, slabs in enumerate(gradients):
            for slab, places, gradient in zip(self._slabs[i], self._places[i], slabs, strict=True):
                for column in columns:
                    measured = gradient if column == GRADIENT else slab.weights
                    self._put_squares(places[column], measured)

    def _sums(self) -> Tensor:
        """Return the squared norms of units, (U, 3) in float64, from what was put of pieces."""
        squares = self._found.new_zeros((len(self._group_of), 3), dtype=torch.float64)
        groups = torch.split(self._found, [len(units) for units in self._units])
        for i, (of_group, units) in enumerate(zip(groups, self._units, strict=True)):
            if self._by_parameter:
                squares.index_add_(0, units, of_group.double())
            else:
                torch.sum(of_group, 0, dtype=torch.float64, out=squares[i])
        return squares

    def _put_squares(self, places: Sequence[Tensor], tensors: Sequence[Tensor]) -> None:
        """Put the squared norm of each tensor, of no more than a slab at once: in float32 those of
        larger ones lose digits."""
        if self._found.device.type != "cpu":
            norms = torch._foreach_norm(list(tensors))
            torch._foreach_copy_(list(places), torch._foreach_pow(norms, 2.0))
            return
        for place, tensor in zip(places, tensors, strict=True):
            flat = tensor if tensor.dim() == 1 else tensor.view(-1)
            if flat.numel() <= self._limit:
                torch.dot(flat, flat, out=place)
            else:
                parts = [torch.dot(part, part) for part in torch.split(flat, self._limit)]
                place.copy_(torch.stack(parts).double().sum())

    def _gradient_factors(self, norms: Tensor, coefficients: Tensor) -> Tensor:
        """Set the control's gradient factors; return that of the global clipping."""
        if self.control.scales_gradients:
            mine = norms[self._index]
            factors = self.control.gradient_scale(mine)
            coefficients[self._index] = checked_factors(
                self.control, "gradient_scale", factors, mine
            )
        if self._max_grad_norm is None:
            return torch.ones((), device=norms.device)
        factor: Tensor = self._max_grad_norm / (norms.norm() + 1e-6)
        return factor.clamp(max=1.0)

    def _make_update(
        self, i: int, slab: Slab, gradient: list[Tensor], divisor: Tensor | None
    ) -> None:
        """Advance what the rule keeps and leave −U of the slab in the scratch."""
        rate = self.settings[i]["lr"]
        slab.scratch.zero_()
        if divisor is None:
            self.rule.update(slab, gradient, rate)
        else:
            self.rule.update_divided(slab, gradient, rate, divisor)
        if self._weight_decay and slab.decays[0]:
            weights, updates = slab.decays
            torch._foreach_add_(updates, weights, alpha=-rate * self._weight_decay)

    def _apply_waiting(
        self,
        gradients: list[list[list[Tensor]]],
        squares: Tensor,
        coefficients: Tensor,
    ) -> None:
        """Scale the updates kept in the gradients' memory and apply them."""
        norms = squares[self._index].sqrt().float()
        self.control.learning_rate = self.settings[0]["lr"]
        said = self.control.update_scale(norms[:, UPDATE], norms[:, WEIGHT])
        coefficients[self._index] = checked_factors(
            self.control, "update_scale", said, norms[:, UPDATE]
        )
        factors = coefficients.tolist()
        for i in self._controlled:
            for slab, update in zip(self._slabs[i], gradients[i], strict=True):
                if not self._by_parameter:
                    factor = factors[i]
                    torch._foreach_add_(slab.weights, update, alpha=factor)
                    continue
                for weight, one, unit in zip(slab.weights, update, slab.units, strict=True):
                    weight.add_(one, alpha=factors[unit])

    def _record(self, squares: Tensor, coefficients: Tensor, clip: Tensor) -> LayerStep:
        """Return the record of squared norms and factors of units, with updates as applied."""
        scaled = self.control.scales_updates and not self._measures
        if not self._by_parameter:
            return record_of(squares.sqrt(), coefficients, clip, scaled)
        groups = squares.new_zeros((len(self._kinds), 3)).index_add_(0, self._group_of, squares)
        applied = squares[:, UPDATE] * coefficients.double().square()
        moved = squares.new_zeros(len(groups)).index_add_(0, self._group_of, applied)
        factor = (moved / groups[:, UPDATE]).sqrt().nan_to_num(nan=1.0)
        return record_of(groups.sqrt(), factor, clip, scaled)
