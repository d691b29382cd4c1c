"""Norms and updates in torch's operations: exact sums, and each in its own place."""

import pytest
import torch

from sweeps import spec
from workers.passes.passes import GRADIENT, UPDATE, WEIGHT, Stepped
from workers.passes.torch_passes import TorchPasses
from workers.updates.registry import build_rule
from workers.updates.shards import whole
from workers.updates.slabs import Layer

RATE = 0.5


def made(layers, *, limit=4, by_parameter=False, whole_matrices=False, **optimizer):
    """Return passes over layers of parameters under plain gradient descent, and their shards."""
    said = {"rule": "sgd", "momentum": 0.0, "learning_rate": RATE, **optimizer}
    rule = build_rule(spec.Optimizer(**said))
    rule.whole_matrices = whole_matrices
    firsts, unit, found = [], 0, []
    for parameters in layers:
        firsts.append(unit)
        shards = whole(parameters, packed=0)
        found.append(
            Layer(
                kind="block",
                shards=shards,
                held=[{} for _ in shards],
                shapes=[p.shape for p in parameters],
                decays=[True] * len(parameters),
                unit=unit,
                by_parameter=by_parameter,
                whole_matrices=whole_matrices,
            )
        )
        unit += len(parameters) if by_parameter else 1
    step = torch.zeros(())
    return TorchPasses(
        Stepped(
            layers=tuple(found),
            rank=0,
            rule=rule,
            weight_decay=said.get("weight_decay", 0.0),
            step=step,
            firsts=firsts,
            units=unit,
            limit=limit,
        )
    )


def parameters():
    """Two layers, of 6 and 3 and of 5 elements."""
    return [
        [torch.full((2, 3), 1.0), torch.full((3,), 2.0)],
        [torch.full((5,), 3.0)],
    ]


def gradients():
    return [[torch.full((6,), 4.0), torch.full((3,), 5.0)], [torch.full((5,), 6.0)]]


@pytest.mark.parametrize("limit", [1, 4, 100])
@pytest.mark.parametrize(
    ("by_parameter", "gradient", "weight"),
    [(False, [6 * 16 + 3 * 25, 5 * 36], [6 + 3 * 4, 5 * 9]),
     (True, [6 * 16, 3 * 25, 5 * 36], [6, 3 * 4, 5 * 9])],
)  # fmt: skip
def test_squares_are_those_of_each_unit_however_it_is_cut(limit, by_parameter, gradient, weight):
    passes = made(parameters(), limit=limit, by_parameter=by_parameter)
    passes.take(gradients())
    squares = passes.measure((GRADIENT, WEIGHT))
    assert squares.dtype == torch.float64
    assert squares[:, GRADIENT].tolist() == gradient
    assert squares[:, WEIGHT].tolist() == weight
    assert squares[:, UPDATE].tolist() == [0.0] * len(gradient)
    only = passes.measure((WEIGHT,))
    assert only[:, GRADIENT].tolist() == [0.0] * len(gradient)
    rates = [RATE, RATE / 5]
    moved = passes.update(rates, None, (), (GRADIENT, UPDATE, WEIGHT))
    of = [rates[0]] * (len(gradient) - 1) + rates[1:]
    assert moved[:, UPDATE].tolist() == pytest.approx(
        [rate**2 * one for rate, one in zip(of, gradient, strict=True)]
    )
    assert moved[:, GRADIENT].tolist() == gradient
    assert moved[:, WEIGHT].tolist() == weight, "as they were before"
    again = passes.update(rates, None, (), (UPDATE,))
    assert again[:, [GRADIENT, WEIGHT]].abs().sum() == 0


def test_what_waits_is_applied_by_its_factor_and_the_rest_at_once():
    layers = parameters()
    passes = made(layers)
    passes.take(gradients())
    passes.update([RATE, RATE], None, (0,), ())
    assert [p.unique().tolist() for p in layers[0]] == [[1.0], [2.0]]
    assert layers[1][0].unique().tolist() == [3.0 - RATE * 6]
    passes.apply((0,), [0.5, 9.0])
    assert [p.unique().tolist() for p in layers[0]] == [[1.0 - 0.5 * 2.0], [2.0 - 0.5 * 2.5]]
    assert layers[1][0].unique().tolist() == [3.0 - RATE * 6]


def test_by_parameter_each_has_its_own_factor():
    layers = parameters()
    passes = made(layers, by_parameter=True)
    passes.take(gradients())
    passes.update([RATE, RATE], None, (0, 1), ())
    passes.apply((0, 1), [0.0, 1.0, 0.5])
    assert [p.unique().tolist() for p in layers[0]] == [[1.0], [2.0 - 2.5]]
    assert layers[1][0].unique().tolist() == [3.0 - 1.5]


def test_gradients_are_taken_times_the_factor_of_their_layer():
    layers = parameters()
    passes = made(layers)
    passes.take(gradients())
    passes.update([RATE, RATE], torch.tensor([0.5, 0.25]), (), ())
    assert layers[0][0].unique().tolist() == [1.0 - RATE * 2]
    assert layers[1][0].unique().tolist() == [3.0 - RATE * 1.5]


def test_decay_is_of_the_rate_of_the_layer():
    layers = parameters()
    passes = made(layers, weight_decay=0.1)
    passes.take([[g.zero_() for g in of_layer] for of_layer in gradients()])
    passes.update([RATE, 1.0], None, (), ())
    assert layers[0][1].tolist() == pytest.approx([2.0 * (1 - RATE * 0.1)] * 3)
    assert layers[1][0].tolist() == pytest.approx([3.0 * 0.9] * 5)


@pytest.mark.parametrize("limit", [1 << 10, 1 << 20], ids=["in parts", "in one piece"])
def test_squares_are_summed_without_losing_digits(limit):
    """2^20 squares of 0.1 added one after the other in float32 come out 1e-6 to 1e-3 off, by how
    many sums a processor keeps."""
    matrix = torch.full((1024, 1024), 0.1)
    passes = made([[matrix]], limit=limit, whole_matrices=True)
    passes.take([[torch.full((1 << 20,), 0.1)]])
    exact = float(matrix.double().square().sum())
    squares = passes.measure((GRADIENT, WEIGHT))
    assert squares[0, WEIGHT].item() == pytest.approx(exact, rel=1e-7)
    assert squares[0, GRADIENT].item() == pytest.approx(exact, rel=1e-7)


def test_gradients_are_let_go_of():
    passes = made(parameters())
    passes.take(gradients())
    passes.let_go()
    assert passes._gradients == []
    assert all(isinstance(one, torch.Tensor) for one in passes.held())
