"""An optimizer whose step passes through a layer control, in the memory of torch's own.

What goes over that memory is ``workers.passes``, by a kernel or in torch's operations; here is what
is asked of it, and what a control is asked between. Where the update must wait for the norms of
whole layers, it is kept in the gradient's own memory, which the rule no longer needs.

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
from workers.engines.layer_step import LayerStep, record_of
from workers.passes.choosing import passes_for
from workers.passes.passes import GRADIENT, UPDATE, WEIGHT, Stepped
from workers.updates.decay import decaying
from workers.updates.registry import build_rule
from workers.updates.shards import Shard
from workers.updates.slabs import CPU_SLAB, DEVICE_SLAB, Layer


def _unshared(squares: Tensor) -> Tensor:
    return squares


def _nothing(call: int) -> None:
    del call


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
        # Whether a step leaves a record; one that does not measures only what its control needs.
        self.records = True
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
        self._step = torch.zeros((), device=device)
        self._firsts = self._first_units()
        self._group_of = torch.tensor(self._groups_of_units(self._firsts), device=device)
        controlled = torch.isin(self._group_of, torch.tensor(self._controlled, device=device))
        self._index = controlled.nonzero().flatten()
        for i, shards in enumerate(layers):
            for shard in shards:
                for start, end in shard.padding:
                    shard.weights.data[start:end] = 0
                self.state[shard.weights] = {"step": self._step, **self._fresh(i, shard)}
        self._passes = passes_for(
            Stepped(
                layers=tuple(self._layer(i, shards) for i, shards in enumerate(layers)),
                rank=rank,
                rule=self.rule,
                weight_decay=self._weight_decay,
                step=self._step,
                firsts=self._firsts,
                units=len(self._group_of),
                limit=slab or (CPU_SLAB if device.type == "cpu" else DEVICE_SLAB),
            )
        )

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

    def _fresh(self, i: int, shard: Shard) -> dict[str, Tensor]:
        """Return what the rule keeps of a shard, zero."""
        shape = shard.weights.shape
        if self.rule.whole_matrices:
            shape = self._shapes[i][shard.pieces[0][0].parameter]
        shapes = self.rule.shapes(shape, self._kinds[i])
        return {name: shard.weights.new_zeros(size) for name, size in shapes.items()}

    def _layer(self, i: int, shards: tuple[Shard, ...]) -> Layer:
        kept = [{k: t for k, t in self.state[s.weights].items() if k != "step"} for s in shards]
        return Layer(
            kind=self._kinds[i],
            shards=shards,
            held=kept,
            shapes=self._shapes[i],
            decays=self._decays[i],
            unit=self._firsts[i],
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
        return [self._step, self._index, self._group_of, *self._passes.held()]

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
        """Take in gradients; on the last call of a step apply it and leave its ``record``, None
        where it ``records`` nothing.

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
        self._passes.take([self._gradients(i) for i in range(len(self.layers))])
        self._held.clear()
        self.record = self._apply()
        self._passes.let_go()
        for call in range(self._calls - 1):
            self._publish(call)

    def _gradients(self, i: int) -> list[Tensor]:
        """Return the flat gradients of layer ``i``, one a shard."""
        flat = []
        for shard in self.layers[i]:
            parts = [self._gradient(owner) for owner in shard.gradient_of]
            flat.append(parts[0] if len(parts) == 1 else torch.cat(parts))
            for start, end in shard.padding:
                flat[-1][start:end] = 0
        return flat

    def _gradient(self, owner: Tensor) -> Tensor:
        gradient = self._held.get(owner, owner.grad) if self._held else owner.grad
        if gradient is None:
            return torch.zeros_like(owner).view(-1)
        return gradient.reshape(-1)

    def _apply(self) -> LayerStep | None:
        coefficients = torch.ones(len(self._group_of), device=self._step.device)
        clip = torch.ones((), device=coefficients.device)
        if self._measures:
            assert self.records
            squares = self._total(self._passes.measure((GRADIENT, WEIGHT)))
            return self._record(squares, coefficients, clip)
        self._step += 1
        rates = [settings["lr"] for settings in self.settings]
        waits = self._controlled if self.control.scales_updates else []
        moved = (UPDATE, WEIGHT) if self.records or self.control.scales_updates else ()
        if self.control.scales_gradients or self._max_grad_norm is not None:
            measured = self._passes.measure((GRADIENT,))
            gradient_squares = self._total(measured[:, GRADIENT].clone())
            clip = self._gradient_factors(gradient_squares.sqrt().float(), coefficients)
            squares = self._passes.update(rates, coefficients * clip, waits, moved)
            if moved:
                squares[:, UPDATE:] = self._total(squares[:, UPDATE:].clone())
            squares[:, GRADIENT] = gradient_squares
        else:
            columns = (GRADIENT, *moved) if self.records else moved
            squares = self._passes.update(rates, None, waits, columns)
            if columns:
                squares = self._total(squares)
        if self.control.scales_updates:
            self._scale(squares, coefficients)
            self._passes.apply(waits, coefficients.tolist())
        return self._record(squares, coefficients, clip) if self.records else None

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

    def _scale(self, squares: Tensor, coefficients: Tensor) -> None:
        """Set the control's update factors."""
        norms = squares[self._index].sqrt().float()
        self.control.learning_rate = self.settings[0]["lr"]
        said = self.control.update_scale(norms[:, UPDATE], norms[:, WEIGHT])
        coefficients[self._index] = checked_factors(
            self.control, "update_scale", said, norms[:, UPDATE]
        )

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
