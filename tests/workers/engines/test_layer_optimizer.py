"""Layers held in stretches by several ranks, with padding, in several calls: as if held whole."""

import threading

import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

from sweeps import spec
from workers.controls.layer_groups import BLOCK, EMBEDDING, HEAD, LayerGroup
from workers.controls.registry import build_control
from workers.engines.layer_optimizer import LayerOptimizer
from workers.passes import choosing
from workers.updates.shards import Shard, stretches, whole

RATE = 0.03
STEPS = 3
SHAPES = {EMBEDDING: [(7, 3)], "block 1": [(5, 4), (5,)], "block 2": [(5, 4), (5,)], HEAD: [(3,)]}
CONTROLS = {
    "standard": spec.Standard(),
    "layer_clip": spec.LayerClip(max_norm=0.5),
    "equal_step": spec.EqualStep(),
    "matrix": spec.EqualStep(unit="matrix", scope="all"),
}


def groups_of():
    generator = torch.Generator().manual_seed(0)
    found = []
    for layer, (name, shapes) in enumerate(SHAPES.items()):
        parameters = [nn.Parameter(torch.randn(s, generator=generator)) for s in shapes]
        kind = BLOCK if "block" in name else name
        names = [f"{name}.{'bias' if len(shape) == 1 else 'weight'}" for shape in shapes]
        found.append(LayerGroup(layer, kind, tuple(names), tuple(parameters)))
    return found


def gradients(step):
    generator = torch.Generator().manual_seed(step)
    return [[torch.randn(s, generator=generator) for s in shapes] for shapes in SHAPES.values()]


def flat(tensors):
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def optimizer_of(groups, control, **said):
    rule = spec.Optimizer(**{"learning_rate": RATE, "weight_decay": 0.1, "eps": 1e-6, **said})
    return LayerOptimizer(groups, build_control(CONTROLS[control]), rule)


def held_whole(control, **said):
    """Return weights by layer, and the records, of one process that holds everything."""
    groups, records = groups_of(), []
    optimizer = optimizer_of(groups, control, **said)
    optimizer.bind([whole(group.parameters) for group in groups])
    for step in range(STEPS):
        for group, parts in zip(groups, gradients(step), strict=True):
            for parameter, gradient in zip(group.parameters, parts, strict=True):
                parameter.grad = gradient.clone()
        optimizer.step()
        records.append(optimizer.record)
    return [flat(group.parameters) for group in groups], records


class Rank:
    """One of several that hold equal stretches of each layer, the last one padded."""

    def __init__(self, rank, ranks, meeting, control, **said):
        self.groups, self.rank, self.meeting = groups_of(), rank, meeting
        self.owners, self.shards, self.sizes = [], [], []
        for group in self.groups:
            members = [(k, p.numel()) for k, p in enumerate(group.parameters)]
            size = sum(count for _, count in members)
            part = -(-size // ranks)
            weights = self.cut(flat(group.parameters), part, fill=torch.nan)
            held = min(part, size - rank * part)
            owner = nn.Parameter(weights.clone())
            padding = ((held, part),) if held < part else ()
            self.owners.append(owner)
            self.sizes.append((part, held))
            self.shards.append(
                (Shard(weights, (owner,), stretches(members, part, ranks), padding),)
            )
        self.optimizer = optimizer_of(self.groups, control, **said)
        self.records = []

    def cut(self, values, part, fill):
        padded = torch.full((part,), fill)
        mine = values[self.rank * part : (self.rank + 1) * part]
        padded[: len(mine)] = mine
        return padded

    def run(self, **bound):
        self.optimizer.bind(self.shards, rank=self.rank, total=self.meeting.total, **bound)
        for step in range(STEPS):
            for owner, parts, (part, _) in zip(
                self.owners, gradients(step), self.sizes, strict=True
            ):
                owner.grad = self.cut(flat(parts), part, fill=torch.nan)
            self.optimizer.step()
            self.records.append(self.optimizer.record)


class Meeting:
    """Sums a tensor over ranks that are threads."""

    def __init__(self, ranks):
        self._barrier, self._said, self._lock = (
            threading.Barrier(ranks, timeout=60),
            [],
            threading.Lock(),
        )

    def total(self, tensor):
        with self._lock:
            self._said.append(tensor.clone())
        self._barrier.wait()
        found = torch.stack(self._said).sum(0)
        if self._barrier.wait() == 0:
            self._said.clear()
        self._barrier.wait()
        return found


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("limit", [None, 1.5])
def test_stretches_of_layers_step_as_the_whole_and_padding_is_zero(control, ranks, limit):
    if control == "layer_clip" and limit is None:
        limit = 100.0  # far above: it clips nothing
    expected, records = held_whole(control, max_grad_norm=limit)
    meeting = Meeting(ranks)
    held = [Rank(rank, ranks, meeting, control, max_grad_norm=limit) for rank in range(ranks)]
    threads = [threading.Thread(target=one.run, kwargs={"slab": 8}) for one in held]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k, values in enumerate(expected):
        found = torch.cat([one.shards[k][0].weights[: one.sizes[k][1]] for one in held])
        torch.testing.assert_close(found, values, rtol=1e-5, atol=1e-6)
    for one in held:
        for (shard,), (_, size) in zip(one.shards, one.sizes, strict=True):
            assert not shard.weights[size:].any()
        for mine, theirs in zip(one.records, records, strict=True):
            for name in ("gradient_norms", "weight_norms", "update_norms", "coefficients"):
                assert getattr(mine, name) == pytest.approx(getattr(theirs, name), rel=1e-4)
            assert mine.clip_coefficient == pytest.approx(theirs.clip_coefficient, rel=1e-5)
            assert mine.total_gradient_norm == pytest.approx(theirs.total_gradient_norm, rel=1e-5)


def test_a_step_that_comes_in_several_calls_is_one_and_each_is_published():
    expected, records = held_whole("equal_step")
    groups, published = groups_of(), []
    optimizer = optimizer_of(groups, "equal_step")
    optimizer.bind(
        [whole(group.parameters) for group in groups], calls=len(groups), publish=published.append
    )
    for step in range(STEPS):
        for k, parts in enumerate(gradients(step)):
            before = optimizer.record
            for parameter, gradient in zip(groups[k].parameters, parts, strict=True):
                parameter.grad = gradient.clone()
            optimizer.param_groups = [optimizer.settings[k]]  # as the owner shows them
            optimizer.step()
            assert (optimizer.record is before) == (k < len(groups) - 1)
            optimizer.zero_grad(set_to_none=True)
        assert optimizer.steps == step + 1
    assert published == [0, 1, 2] * STEPS
    for group, values in zip(groups, expected, strict=True):
        torch.testing.assert_close(flat(group.parameters), values, rtol=0, atol=1e-7)
    assert optimizer.record == records[-1]


def test_a_parameter_without_a_gradient_has_one_of_zero():
    groups = groups_of()
    optimizer = optimizer_of(groups, "standard", weight_decay=0.0)
    optimizer.bind([whole(group.parameters) for group in groups])
    before = [flat(group.parameters) for group in groups]
    groups[0].parameters[0].grad = torch.ones(7, 3)
    optimizer.step()
    assert optimizer.record.gradient_norms == pytest.approx([21**0.5, 0, 0, 0])
    assert not torch.equal(flat(groups[0].parameters), before[0])
    for group, values in zip(groups[1:], before[1:], strict=True):
        assert torch.equal(flat(group.parameters), values)


def test_measuring_moves_nothing_and_counts_no_step():
    groups = groups_of()
    optimizer = optimizer_of(groups, "equal_step", max_grad_norm=0.1)
    optimizer.bind([whole(group.parameters) for group in groups])
    before = [flat(group.parameters) for group in groups]
    for group, parts in zip(groups, gradients(0), strict=True):
        for parameter, gradient in zip(group.parameters, parts, strict=True):
            parameter.grad = gradient
    with optimizer.measuring():
        optimizer.step()
    assert optimizer.steps == 0
    norms = [flat(parts).norm().item() for parts in gradients(0)]
    assert optimizer.record.gradient_norms == pytest.approx(norms, rel=1e-5)
    assert optimizer.record.weight_norms == pytest.approx([b.norm().item() for b in before])
    assert optimizer.record.update_norms == [0.0] * 4
    for group, values in zip(groups, before, strict=True):
        assert torch.equal(flat(group.parameters), values)


@pytest.mark.parametrize("kernel_from", [0, 1 << 40], ids=["kernel", "torch"])
@pytest.mark.parametrize("control", CONTROLS)
def test_gradients_are_let_go_of_after_a_step(control, kernel_from, monkeypatch):
    monkeypatch.setattr(choosing, "KERNEL_FROM", kernel_from)
    groups = groups_of()
    optimizer = optimizer_of(groups, control)
    optimizer.bind([whole(group.parameters) for group in groups])
    storages = []
    for group, parts in zip(groups, gradients(0), strict=True):
        for parameter, gradient in zip(group.parameters, parts, strict=True):
            parameter.grad = gradient
            storages.append(StorageWeakRef(gradient.untyped_storage()))
    del parts, gradient
    optimizer.step()
    assert not any(storage.expired() for storage in storages)
    optimizer.zero_grad()
    assert all(storage.expired() for storage in storages)


def test_before_it_is_bound_a_step_does_nothing():
    optimizer = optimizer_of(groups_of(), "standard")
    optimizer.step()
    assert optimizer.record is None


def test_a_control_of_gradients_divides_by_its_factor_before_the_rule():
    """Of plain gradient descent: the step is as long as the clipped gradient says."""
    _, records = held_whole("layer_clip", rule="sgd", momentum=0.0, weight_decay=0.0)
    for record in records:
        for norm, factor, moved in zip(
            record.gradient_norms, record.coefficients, record.update_norms, strict=True
        ):
            assert factor == pytest.approx(min(1.0, 0.5 / norm), rel=1e-4)
            assert moved == pytest.approx(RATE * min(norm, 0.5), rel=1e-4)
    assert min(records[0].coefficients) < 0.5


def test_of_several_ranks_it_is_the_first_one_unless_another_is_said():
    found = []
    for said in ({"rank": 0}, {}, {"rank": 1}):
        one = Rank(0, 2, None, "matrix")
        one.optimizer.bind(one.shards, **said)
        for owner, parts, (part, _) in zip(one.owners, gradients(0), one.sizes, strict=True):
            owner.grad = one.cut(flat(parts), part, fill=0.0)
        one.optimizer.step()
        found.append((one.optimizer.record, [shards[0].weights for shards in one.shards]))
    assert found[1][0] == found[0][0] != found[2][0]
    assert all(torch.equal(a, b) for a, b in zip(found[1][1], found[0][1], strict=True))


def test_what_a_rule_of_whole_matrices_keeps_has_the_shape_of_each():
    groups = groups_of()
    optimizer = optimizer_of(groups, "standard", rule="muon")
    optimizer.bind([whole(group.parameters, 0) for group in groups])
    for group, shards in zip(groups, optimizer.layers, strict=True):
        for parameter, shard in zip(group.parameters, shards, strict=True):
            kept = optimizer.state[shard.weights]
            sizes = {t.numel() for name, t in kept.items() if name != "step"}
            assert sizes == {parameter.numel()}
            if group.kind == BLOCK and parameter.dim() == 2:
                shapes = {tuple(t.shape) for name, t in kept.items() if name != "step"}
                assert shapes == {tuple(parameter.shape)}


def test_it_goes_on_at_the_step_that_it_is_told():
    """Moments of Adam are corrected for how many steps they are of."""

    def moved(steps):
        groups = groups_of()
        optimizer = optimizer_of(groups, "standard", weight_decay=0.0)
        optimizer.bind([whole(group.parameters) for group in groups])
        before = flat(groups[1].parameters)
        optimizer.steps = steps
        assert optimizer.steps == steps
        for group, parts in zip(groups, gradients(0), strict=True):
            for parameter, gradient in zip(group.parameters, parts, strict=True):
                parameter.grad = gradient.clone()
        optimizer.step()
        assert optimizer.steps == steps + 1
        return flat(groups[1].parameters) - before

    beta1, beta2 = spec.Optimizer(learning_rate=RATE).betas
    first, later = moved(0), moved(9)
    # Moments that were zero until now: m = (1 − β₁)·g, v = (1 − β₂)·g², each over 1 − β^step.
    share = (1 - beta1) / (1 - beta1**10) * ((1 - beta2**10) / (1 - beta2)) ** 0.5
    torch.testing.assert_close(later, share * first, rtol=1e-4, atol=1e-7)
