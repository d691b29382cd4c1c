"""What every objective is held to: a loss that is a sum over targets, however a batch is cut.

It is tried on rows that it is given, or on texts of Python's documentation under each of its roles
and labels 0 and 1.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sweeps.rows.data_files import data_files
from sweeps.sources.content import data_digest
from sweeps.spec import FileData, Objective, RunSpec
from workers.contract.pytest_plugin import Subject
from workers.contract.small_study import rows_of_two, small_run
from workers.data.datasets import load_rows
from workers.engines.engine import Batch
from workers.loading import load_model
from workers.objectives.objective import TrainingObjective, micro_batches

WORDS = ["a", "token", "stands", "before", "another", "one", "in", "its", "line", "of", "text"]


@pytest.fixture
def run(subject: Subject, tmp_path: Path) -> RunSpec:
    """A run of the objective, on the rows that were given or made."""
    if subject.rows is not None:
        path = Path(subject.rows).absolute()
    else:
        path = tmp_path / "rows.jsonl"
        rows = [_row(subject.plugin.mark.target.roles, number) for number in range(48)]
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    data = FileData(
        file=str(path),
        digest=data_digest(data_files(path, None)),
        columns={role: role for role in subject.plugin.mark.target.roles},
    )
    mark = subject.plugin.mark
    objective = Objective(
        kind=mark.name,
        data=data,
        read_roles=tuple(mark.target.roles),
        options=subject.options,
        code=subject.plugin.code,
    )
    return small_run(objective=objective)


def _row(roles: tuple[str, ...], number: int) -> dict[str, Any]:
    return {
        role: number % 2
        if role == "label"
        else " ".join(WORDS[(number + k) % 8 :] + WORDS[: number % 5])
        for k, role in enumerate(roles)
    }


@pytest.fixture
def made(
    subject: Subject, run: RunSpec, tmp_path: Path
) -> tuple[TrainingObjective, nn.Module, dict[str, np.ndarray[Any, Any]]]:
    """The objective, the module that it trains, and its arrays."""
    objective = subject.build(run.objective)
    pretrained = load_model(run.model, tmp_path, needs_head=objective.needs_head)
    torch.manual_seed(0)
    model = objective.build_model(pretrained)
    rows = load_rows(run.objective.data, run.objective.cells)
    return objective, model, objective.tokenise(pretrained.tokenizer, rows, run.sequence_length)


def _gradients(objective: TrainingObjective, model: nn.Module, batch: Batch, size: int) -> Any:
    model.zero_grad()
    for part in micro_batches(batch, size):
        loss = objective.loss_sum(model, part) / objective.targets(batch)
        loss.backward()  # type: ignore[no-untyped-call]
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def test_its_arrays_are_whole_numbers_with_an_example_a_row(made: Any) -> None:
    _, _, arrays = made
    assert len({len(array) for array in arrays.values()}) == 1
    assert all(np.issubdtype(array.dtype, np.integer) for array in arrays.values())


def test_a_batch_is_a_pure_function_of_run_and_step(made: Any, run: RunSpec) -> None:
    objective, _, arrays = made
    one, again = (objective.batch(arrays, run, 2) for _ in range(2))
    assert one.keys() == again.keys()
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert all(len(tensor) == run.batch_size for tensor in one.values())


def test_the_loss_is_one_finite_number_over_its_targets(made: Any, run: RunSpec) -> None:
    objective, model, arrays = made
    batch = objective.batch(arrays, run, 1)
    copies = {name: tensor.clone() for name, tensor in batch.items()}
    loss = objective.loss_sum(model, batch)
    assert loss.shape == ()
    assert loss.isfinite()
    assert loss.requires_grad
    assert objective.targets(batch) > 0
    assert all(torch.equal(batch[name], copies[name]) for name in batch)


def test_a_batch_gives_one_gradient_however_it_is_cut(made: Any, run: RunSpec) -> None:
    objective, model, arrays = made
    if type(objective).accumulate is not TrainingObjective.accumulate:
        pytest.skip("it accumulates in a way of its own")
    batch = objective.batch(arrays, run, 1)
    whole, cut = (_gradients(objective, model, batch, size) for size in (run.batch_size, 1))
    assert len(whole) == len(cut)
    scale = max(float(one.abs().max()) for one in whole)
    if scale == 0:
        pytest.skip("its loss has no gradient on these rows: give others with --depthsweep-rows")
    for one, other in zip(whole, cut, strict=True):
        # Float32 sums in another order.
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-4 * scale)


def test_a_run_trains_with_it_twice_to_the_same_rows(run: RunSpec, tmp_path: Path) -> None:
    one, other = rows_of_two(run, tmp_path)
    assert one["status"] == "finished"
    assert one == other
