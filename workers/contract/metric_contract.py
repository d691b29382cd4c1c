"""What every metric is held to: one number of two matrices (n, d), whatever order rows are in."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sweeps.spec import PluginMetric, Probe
from workers.contract.pytest_plugin import Subject
from workers.contract.small_study import TEXT, rows_of_two, small_run


def pair(rows: int, width: int) -> tuple[Tensor, Tensor]:
    """Return states before and after, (n, d) in float64."""
    generator = torch.Generator().manual_seed(rows + width)
    before = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    noise = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    return before, before + 0.2 * noise


@pytest.mark.parametrize(("rows", "width"), [(40, 16), (24, 64), (64, 32)])
def test_it_is_one_finite_number(subject: Subject, rows: int, width: int) -> None:
    value = subject.build(*pair(rows, width))
    assert math.isfinite(float(value))


def test_states_that_did_not_change_have_a_value(subject: Subject) -> None:
    before, _ = pair(40, 16)
    assert math.isfinite(float(subject.build(before, before.clone())))


def test_the_order_of_the_probe_tokens_is_of_no_matter(subject: Subject) -> None:
    before, now = pair(40, 16)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    value, shuffled = subject.build(before, now), subject.build(before[order], now[order])
    assert float(shuffled) == pytest.approx(float(value), rel=1e-6, abs=1e-9)


def test_the_same_states_give_the_same_value_and_are_left_as_they_are(subject: Subject) -> None:
    before, now = pair(40, 16)
    copies = before.clone(), now.clone()
    assert float(subject.build(before, now)) == float(subject.build(before, now))
    assert torch.equal(before, copies[0])
    assert torch.equal(now, copies[1])


def test_a_run_measures_it_twice_to_the_same_rows(subject: Subject, tmp_path: Path) -> None:
    mark = subject.plugin.mark
    metric = PluginMetric(name=mark.name, options=subject.options, code=subject.plugin.code)
    probe = Probe(data=TEXT, rows=32, sequence_length=16, every=3, metrics=(metric,))
    one, other = rows_of_two(small_run(probe=probe), tmp_path)
    assert one["status"] == "finished"
    assert one["metrics"]
    assert one == other
