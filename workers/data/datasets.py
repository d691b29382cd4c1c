"""Rows of a dataset, and which of them a step trains on."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweeps.rows.cells import Labels, checked_cell
from sweeps.rows.held_out import WHOLE, Part
from sweeps.rows.local_rows import PLAIN_TEXT, Rows, checked, checked_text, read_rows
from sweeps.rows.row_files import RowFile
from sweeps.sources.content import held_to_its_digest
from sweeps.sources.corpora import builtin_rows
from sweeps.spec import BuiltinData, Cell, DataSource, FileData, HubData, RunSpec
from workers.data.hub_columns import require_columns, said_of_loading
from workers.data.hub_stream import stream_rows
from workers.models.hub import dataset_columns


def load_rows(
    data: DataSource,
    cells: Mapping[str, Cell],
    labels: Labels = Labels(),  # noqa: B008
    part: Part = WHOLE,
) -> dict[str, list[Any]]:
    """Return the columns of a part of a dataset under their roles, each cell as ``checked_cell``
    makes it.

    Raises UserError when it cannot be loaded, is not what the run was declared with, lacks a
    column, or has a cell that is something else.
    """
    columns = columns_of(data, cells)
    with held_to_its_digest(data, f"dataset {data.label}"):
        if isinstance(data, BuiltinData):
            found = builtin_rows(data.builtin, columns)
        elif isinstance(data, FileData):
            found = read_rows(data.paths, columns, data.documents)
        elif data.stream:
            rows = list(stream_rows(data, columns))
            streamed = {role: [row[role] for row in rows] for role in columns}
            return checked(
                Rows(f"dataset {data.label}", columns, streamed), cells, labels, part=part
            )
        else:
            found = Rows(f"dataset {data.label}", columns, _hub_cells(data, columns))
        return checked(found, cells, labels, data.limit, data.shuffle_seed, part)


def stream_texts(data: DataSource) -> Iterator[str]:
    """Yield the texts of a dataset one after the other, held in memory where there is no other way;
    what ``load_rows`` raises is raised where it is met."""
    if isinstance(data, HubData) and data.stream:
        columns = columns_of(data, PLAIN_TEXT)
        place = Rows(f"dataset {data.label}", columns, {}).place
        for number, row in enumerate(stream_rows(data, columns)):
            yield checked_cell("stream", place("text", number), row["text"])
        return
    if not isinstance(data, FileData) or data.shuffle_seed is not None:
        yield from load_rows(data, PLAIN_TEXT)["text"]
        return
    column = data.columns.get("text", "text")
    with held_to_its_digest(data, f"dataset {data.label}"):
        texts = (
            checked_text(file, number, column, cell)
            for file in map(RowFile.at, data.paths)
            for number, cell in file.stream(column, data.documents)
        )
        yield from itertools.islice(texts, data.limit)


def columns_of(data: DataSource, roles: Iterable[str]) -> dict[str, str]:
    """Return the column of each role."""
    return {role: data.columns.get(role, role) for role in roles}


def hub_table(data: HubData, columns: dict[str, str]) -> Any:
    """Return the columns of a dataset of the hub, by role, from this node's disk, downloading what
    is missing. Raises UserError where it cannot be loaded or lacks one."""
    import datasets

    datasets.disable_progress_bars()
    with said_of_loading(data):
        table = dataset_columns(data, list(columns.values()))
    require_columns(data, columns, table.column_names)
    return table


def _hub_cells(data: HubData, columns: dict[str, str]) -> dict[str, list[Any]]:
    table = hub_table(data, columns)
    return {role: list(table[column]) for role, column in columns.items()}


def batch_indices(seed: int, step: int, batch_size: int, examples: int) -> NDArray[np.int64]:
    """Return the examples of ``step`` (1, 2, …): a pure function of its arguments.

    Steps walk through one seeded permutation of all examples after another, without gaps.
    """
    positions = np.arange((step - 1) * batch_size, step * batch_size)
    epochs, offsets = np.divmod(positions, examples)
    chosen = np.empty(batch_size, dtype=np.int64)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        chosen[here] = _permutation(seed, int(epoch), examples)[offsets[here]]
    return chosen


# A batch may reach over the end of an epoch.
@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, examples: int) -> NDArray[np.int64]:
    """Return the order of an epoch: of ten million examples it takes half a second to make."""
    permutation = np.random.default_rng([seed, epoch]).permutation(examples)
    permutation.setflags(write=False)
    return permutation


def examples_read(run: RunSpec, steps: int, examples: int) -> NDArray[np.int64]:
    """Return the examples that the first ``steps`` of a run's batches read, in order."""
    if steps * run.candidates >= examples:
        return np.arange(examples)
    return np.unique(
        np.concatenate(
            [
                batch_indices(run.seed, step, run.candidates, examples)
                for step in range(1, steps + 1)
            ]
        )
    )
