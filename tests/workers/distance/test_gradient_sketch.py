"""Sketches of gradients keep inner products: exactly where they fit, else without bias."""

import pytest
import torch
from torch import nn

from workers.distance import gradient_sketch
from workers.distance.gradient_sketch import BlockSketch


def parameters(*shapes):
    return [nn.Parameter(torch.zeros(shape)) for shape in shapes]


def sketched(sketch, owners, flat):
    start = 0
    for owner in owners:
        owner.grad = flat[start : start + owner.numel()].reshape(owner.shape).clone()
        start += owner.numel()
    return sketch.of_gradients().double()


def test_a_gradient_that_fits_is_kept_as_it_is():
    owners = parameters((3, 4), (5,))
    sketch = BlockSketch(owners, seed=0, width=17)
    flat = torch.randn(17)
    assert sketch.exact
    assert torch.equal(sketched(sketch, owners, flat).float(), flat)
    owners[1].grad = None
    assert sketch.of_gradients()[12:].abs().sum() == 0


def test_inner_products_are_unbiased_with_the_error_that_is_stated(monkeypatch):
    monkeypatch.setattr(gradient_sketch, "CHUNK", 1000)  # several chunks of a parameter
    owners = parameters((40, 100), (300,))
    generator = torch.Generator().manual_seed(0)
    a, noise = torch.randn(2, 4300, generator=generator)
    b = 0.5 * a + noise
    width = 256
    errors = []
    for seed in range(300):
        sketch = BlockSketch(owners, seed, width)
        assert not sketch.exact
        found = sketched(sketch, owners, a) @ sketched(sketch, owners, b)
        errors.append(float(found - a.double() @ b.double()) / float(a.norm() * b.norm()))
    spread = torch.tensor(errors)
    assert abs(float(spread.mean())) < 4 * float(spread.std()) / 300**0.5
    assert float(spread.std()) < 1.1 * (2 / width) ** 0.5


def test_equal_seeds_hash_equally_and_parameters_are_not_confused():
    owners, again = parameters((50,), (50,)), parameters((50,), (50,))
    flat = torch.randn(100)
    one = sketched(BlockSketch(owners, 3, 10), owners, flat)
    assert torch.equal(one, sketched(BlockSketch(again, 3, 10), again, flat))
    assert not torch.equal(one, sketched(BlockSketch(again, 4, 10), again, flat))
    swapped = torch.cat([flat[50:], flat[:50]])
    assert not torch.equal(one, sketched(BlockSketch(owners, 3, 10), owners, swapped))


@pytest.mark.parametrize("width", [1, 7, 99])
def test_a_sketch_is_linear(width):
    owners = parameters((10, 10))
    sketch = BlockSketch(owners, 1, width)
    a, b = torch.randn(2, 100)
    total = sketched(sketch, owners, a) + 2 * sketched(sketch, owners, b)
    torch.testing.assert_close(sketched(sketch, owners, a + 2 * b), total, rtol=1e-4, atol=1e-4)
