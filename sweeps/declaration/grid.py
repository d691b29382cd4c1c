"""The points of a block: its grid, less what it excludes, plus what it includes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from sweeps.declaration.entries.sweep_spec import Block, Settings, SweepSpec
from sweeps.errors import UserError


def points_of(spec: SweepSpec, block: Block, where: str) -> Iterator[dict[str, Any]]:
    """Yield each point of a block as settings by name, defaults and block settings included.

    Raises UserError for a setting that is said twice, and an exclude that matches nothing.
    """
    shared = {**spec.defaults.said(), **block.set.said()}
    lists = {name: getattr(block.grid, name) for name in Settings.model_fields}
    axes = {name: values for name, values in lists.items() if values is not None}
    doubled = sorted(set(axes) & set(block.set.said()))
    if doubled:
        raise UserError(
            f"{where}: block {block.name!r} sets {doubled[0]!r} in both grid and set; keep one"
        )
    excluded = [0] * len(block.exclude)
    for values in itertools.product(*axes.values()) if axes else ():
        point = {**shared, **dict(zip(axes, values, strict=True))}
        hits = [k for k, entry in enumerate(block.exclude) if _matches(entry, point)]
        for k in hits:
            excluded[k] += 1
        if not hits:
            yield point
    for k, count in enumerate(excluded):
        if not count:
            said = ", ".join(f"{name}: {value}" for name, value in block.exclude[k].said().items())
            raise UserError(
                f"{where}: exclude {{{said}}} of block {block.name!r} matches no point of its grid"
            )
    for entry in block.include:
        yield {**shared, **entry.said()}


def _matches(entry: Settings, point: dict[str, Any]) -> bool:
    return all(point.get(name) == value for name, value in entry.said().items())
