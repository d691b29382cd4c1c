"""Rows of a dataset of the hub as they come, for one that is larger than the disk: none are kept.

They are those that a download would give, in its order. With a seed the order is nearly random:
files are gone through in a random order, and each row is drawn from so many that wait.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, TypeVar

import numpy as np

from sweeps.spec import HubData
from workers.data.hub_columns import require_columns, said_of_loading
from workers.models.hub import patiently
from workers.progress import PULSE

Row = TypeVar("Row")
# Rows that wait to be drawn where there is a seed; part of what decides the order.
WAITING = 10_000
# Rows between two signs of life.
ROWS_AT_ONCE = 1000


def stream_rows(data: HubData, columns: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Yield the cells of each row by role, as many as ``limit`` says, in the order of the seed.

    A connection that breaks is made again, and goes on where it was. Raises UserError where the
    dataset cannot be read or lacks a column.
    """
    with said_of_loading(data):
        rows = _kept_up(partial(_opened, data, columns), f"dataset {data.hub}")
        yield from itertools.islice(rows, data.limit)


def _opened(data: HubData, columns: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Yield all rows, from the first."""
    import datasets

    datasets.disable_progress_bars()
    stream = datasets.load_dataset(
        data.hub, data.config, revision=data.revision, split=data.split, streaming=True
    )
    names = stream.column_names
    if names is None:  # of files that say so in their rows alone
        names = list(next(iter(stream), {}))
    require_columns(data, columns, names)
    stream = stream.select_columns(sorted(set(columns.values())))
    rows = iter(stream) if data.shuffle_seed is None else _shuffled(stream, data.shuffle_seed)
    for row in rows:
        yield {role: row[column] for role, column in columns.items()}


def _shuffled(stream: Any, seed: int) -> Iterator[Any]:
    """Yield the rows of a stream in the order of a seed, which nothing but its files decides."""
    generator = np.random.default_rng(seed)
    shards = stream.num_shards
    order = generator.permutation(shards).tolist()
    rows = itertools.chain.from_iterable(stream.shard(shards, index) for index in order)
    yield from drawn(rows, generator, WAITING)


def drawn(rows: Iterable[Row], generator: np.random.Generator, waiting: int) -> Iterator[Row]:
    """Yield each row once, drawn at random from the next ``waiting`` ones."""
    held: list[Row] = []
    for row in rows:
        if len(held) < waiting:
            held.append(row)
            continue
        place = int(generator.integers(waiting))
        yield held[place]
        held[place] = row
    for place in generator.permutation(len(held)).tolist():
        yield held[place]


def _kept_up(opened: Callable[[], Iterator[Row]], what: str) -> Iterator[Row]:
    """Yield what an iterator does that is made anew where the hub fails in its midst."""
    done = 0
    rows: Iterator[Row] | None = None

    def more() -> list[Row]:
        nonlocal rows
        try:
            if rows is None:
                rows = itertools.islice(opened(), done, None)
            return list(itertools.islice(rows, ROWS_AT_ONCE))
        except Exception:
            rows = None
            raise

    while batch := patiently(more, what):
        PULSE.beat()
        yield from batch
        done += len(batch)
