"""What every control is held to: factors, one a layer, that are numbers whatever the norms are.

Norms are of shape (C,), one a controlled layer; see ``workers.controls.layer_control``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sweeps.spec import PluginControl
from workers.contract.pytest_plugin import Subject
from workers.contract.small_study import rows_of_two, small_run
from workers.controls.layer_control import LayerControl

Scale = Callable[..., Tensor]


def scales(control: LayerControl) -> list[tuple[Scale, int]]:
    """Return the methods that are called, and how many vectors each is given."""
    found: list[tuple[Scale, int]] = []
    if control.scales_gradients:
        found.append((control.gradient_scale, 1))
    if control.scales_updates:
        found.append((control.update_scale, 2))
    return found


@pytest.mark.parametrize("layers", [1, 2, 13])
@pytest.mark.parametrize("size", [1e-12, 1e-3, 1.0, 1e6])
def test_there_is_a_factor_a_layer_whatever_the_size_of_norms(
    subject: Subject, layers: int, size: float
) -> None:
    generator = torch.Generator().manual_seed(layers)
    for scale, count in scales(subject.build()):
        norms = [size * (torch.rand(layers, generator=generator) + 0.1) for _ in range(count)]
        factors = scale(*norms)
        assert isinstance(factors, Tensor)
        assert factors.shape == (layers,)
        assert factors.isfinite().all(), f"{scale.__name__} of {norms}"
        assert (factors >= 0).all(), "a factor below 0 turns the step round"


def test_a_layer_without_gradient_or_weight_gets_a_number(subject: Subject) -> None:
    for scale, count in scales(subject.build()):
        for empty in range(count):
            norms = [torch.tensor([0.5, 1.0, 2.0]) for _ in range(count)]
            norms[empty][1] = 0.0
            assert scale(*norms).isfinite().all(), f"{scale.__name__} of {norms}"


def test_the_same_norms_give_the_same_factors_and_are_left_as_they_are(subject: Subject) -> None:
    control = subject.build()
    for scale, count in scales(control):
        norms = [torch.tensor([0.3, 1.0, 2.5, 0.7]) for _ in range(count)]
        before = [one.clone() for one in norms]
        first = scale(*norms).clone()
        assert torch.equal(first, scale(*norms)), "ranks and resumed runs would differ"
        assert all(torch.equal(*pair) for pair in zip(norms, before, strict=True))


def test_a_run_trains_with_it_twice_to_the_same_rows(subject: Subject, tmp_path: Path) -> None:
    mark = subject.plugin.mark
    control = PluginControl(kind=mark.name, options=subject.options, code=subject.plugin.code)
    one, other = rows_of_two(small_run(control=control), tmp_path)
    assert one["status"] == "finished"
    assert one == other
