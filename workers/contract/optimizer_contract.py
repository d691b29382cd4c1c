"""What every optimizer is held to: an update of each number, however its memory is cut.

It steps layers of a few numbers, whose gradients are made up, in the engine that runs step by. What
a rule is told and what it leaves: see ``workers.updates.update_rule``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sweeps.plugins.entries import rule_of
from sweeps.spec import EqualStep, Optimizer, Standard
from workers.contract.pytest_plugin import Subject
from workers.contract.small_study import rows_of_two, small_run
from workers.controls.layer_groups import BLOCK, EMBEDDING, HEAD, LayerGroup
from workers.controls.registry import build_control
from workers.engines.layer_step import LayerStep
from workers.engines.plain import PlainEngine
from workers.updates.registry import build_rule
from workers.updates.update_rule import Slab

SHAPES: dict[str, list[tuple[int, ...]]] = {
    EMBEDDING: [(10, 6)],
    BLOCK: [(8, 6), (8,), (2, 3, 5)],
    HEAD: [(6,), (10, 6)],
}
KINDS = (EMBEDDING, BLOCK, BLOCK, HEAD)
CPU = torch.device("cpu")
RATE = 1e-3


def specified(subject: Subject, **said: Any) -> Optimizer:
    own = rule_of(subject.plugin, subject.options)
    return Optimizer(rule=subject.plugin.mark.name, learning_rate=RATE, own=own, **said)


def engine_of(
    subject: Subject, *, control: EqualStep | None = None, slab: int | None = None, **said: Any
) -> PlainEngine:
    """Return an engine over two blocks, an embedding and a head, always of the same weights."""
    generator = torch.Generator().manual_seed(0)
    groups, model = [], nn.ParameterList()
    for layer, kind in enumerate(KINDS):
        size = (1 + layer) / 4
        parameters = tuple(
            nn.Parameter(size * torch.randn(shape, generator=generator)) for shape in SHAPES[kind]
        )
        model.extend(parameters)
        names = tuple(f"{kind}{layer}.{k}" for k in range(len(parameters)))
        groups.append(LayerGroup(layer, kind, names, parameters))
    rule = build_control(control or Standard())
    return PlainEngine(model, groups, rule, specified(subject, **said), "fp32", slab)


def drawn(step: int) -> Callable[[Tensor], Tensor]:
    """Return gradients that depend on the step alone, by the parameter they are asked for."""
    generator = torch.Generator().manual_seed(step)
    return lambda weight: torch.randn(weight.shape, generator=generator)


def advance(
    engine: PlainEngine, steps: Iterable[int], scale: Callable[[int], float] = lambda _: 1.0
) -> LayerStep:
    """Take steps with ``drawn`` gradients of some scale; return the record of the last."""
    for step in steps:
        gradient = drawn(step)
        for parameter in engine.model.parameters():
            parameter.grad = scale(step) * gradient(parameter)
        record = engine.step(RATE)
    assert record is not None
    return record


def weights(engine: PlainEngine) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in engine.model.parameters()]


def slabs(subject: Subject) -> list[Slab]:
    """Return a fresh slab of each kind of layer, of a few parameters."""
    rule = build_rule(specified(subject))
    found = []
    for kind, shapes in SHAPES.items():
        sizes = [torch.Size(shape) for shape in shapes]
        shaped = [s if rule.whole_matrices else torch.Size((s.numel(),)) for s in sizes]
        scratch = torch.zeros(sum(shape.numel() for shape in shaped))
        cut = torch.split(scratch, [shape.numel() for shape in shaped])
        found.append(
            Slab(
                kind=kind,
                pieces=[(k, 0, shape.numel()) for k, shape in enumerate(shaped)],
                weights=[torch.linspace(-1, 1, s.numel()).view(s) for s in shaped],
                updates=[one.view(s) for one, s in zip(cut, shaped, strict=True)],
                states=[
                    {name: torch.zeros(size) for name, size in rule.shapes(s, kind).items()}
                    for s in shaped
                ],
                steps=[torch.ones(())] * len(shaped),
                scratch=scratch,
                units=[0] * len(shaped),
                decays=([], []),
            )
        )
    return found


def test_small_steps_lead_downhill(subject: Subject) -> None:
    engine = engine_of(subject)
    before = sum(float(weight.square().sum()) for weight in weights(engine))
    for _ in range(30):
        for parameter in engine.model.parameters():
            parameter.grad = parameter.detach().clone()
        engine.step(RATE)
    after = sum(float(weight.square().sum()) for weight in weights(engine))
    assert after < before, "of ½‖W‖², whose gradient is W: update leaves −U, not U"


@pytest.mark.parametrize("size", [0.0, 1e-20, 1e-3, 1e6])
def test_an_update_is_numbers_whatever_the_size_of_gradients(subject: Subject, size: float) -> None:
    engine = engine_of(subject)
    record = advance(engine, range(3), lambda _: size)
    assert all(torch.tensor(record.update_norms).isfinite())
    assert all(weight.isfinite().all() for weight in weights(engine))


def test_weights_and_gradients_are_left_as_they_are(subject: Subject) -> None:
    rule = build_rule(specified(subject))
    for slab in slabs(subject):
        gradients = [torch.randn_like(weight) for weight in slab.weights]
        before = [one.clone() for one in (*slab.weights, *gradients, *slab.steps)]
        rule.update(slab, gradients, RATE)
        after = (*slab.weights, *gradients, *slab.steps)
        assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))


def test_nothing_comes_of_nothing(subject: Subject) -> None:
    """Ranks that share a layer have memory that belongs to no weight, and counts in its norm."""
    rule = build_rule(specified(subject))
    if rule.whole_matrices:
        pytest.skip("it is given whole parameters, which ranks do not share")
    for slab in slabs(subject):
        for weight in slab.weights:
            weight.zero_()
        rule.update(slab, [torch.zeros_like(weight) for weight in slab.weights], RATE)
        assert not slab.scratch.any()


def test_it_is_of_no_matter_where_layers_are_cut(subject: Subject) -> None:
    ends = []
    for slab in (None, 7):
        engine = engine_of(subject, slab=slab)
        advance(engine, range(4))
        ends.append(weights(engine))
    for one, other in zip(*ends, strict=True):
        # Kernels of odd sizes round the last bit otherwise.
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-7), "inherit from MatrixRule"


def test_from_its_states_it_goes_on_as_if_never_stopped(subject: Subject) -> None:
    engine, again = engine_of(subject), engine_of(subject)
    advance(engine, range(3))
    for i in range(len(engine.groups)):
        for name in engine.tensors:
            again.set_layer(i, name, list(engine.layer(i, name, CPU).values()))
    again.optimizer.steps = engine.optimizer.steps
    for each in (engine, again):
        advance(each, range(3, 6))
    assert all(torch.equal(*pair) for pair in zip(weights(engine), weights(again), strict=True)), (
        "what it knows of earlier steps stands in its states, or it is lost with the process"
    )


def test_clipped_gradients_are_what_it_sees(subject: Subject) -> None:
    """A rule may be given a divisor in place of smaller gradients (``update_divided``)."""
    clipped, scaled = engine_of(subject, max_grad_norm=0.25), engine_of(subject)
    sizes = {}
    for step in range(3):
        gradient = drawn(step)
        norms = [gradient(parameter).norm() for parameter in scaled.model.parameters()]
        sizes[step] = 0.25 / (float(torch.stack(norms).norm()) + 1e-6)
    advance(clipped, range(3))
    advance(scaled, range(3), sizes.__getitem__)
    for one, other in zip(weights(clipped), weights(scaled), strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("unit", ["block", "matrix"])
def test_steps_that_are_made_equal_are_equal(subject: Subject, unit: str) -> None:
    control = EqualStep.model_validate({"target": "budget", "unit": unit})
    record = advance(engine_of(subject, control=control), range(2))
    first, second = (record.update_norms[k] / record.weight_norms[k] for k in (1, 2))
    assert 0 < first == pytest.approx(second, rel=1e-5)


def test_a_run_trains_with_it_twice_to_the_same_rows(subject: Subject, tmp_path: Path) -> None:
    one, other = rows_of_two(small_run(optimizer=specified(subject)), tmp_path)
    assert one["status"] == "finished"
    assert one == other
