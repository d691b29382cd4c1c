"""What became of a sweep when its file was edited: the same, changed field by field, or gone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sweeps.spec import RunSpec


@dataclass(frozen=True)
class Changes:
    """Runs of the new version by what they were in the old one.

    ``fields`` has, for each identity field that differs in runs of the same model, objective,
    control and seed, its old and new value and the number of such runs.
    """

    same: int
    changed: int
    added: int
    gone: tuple[RunSpec, ...]
    fields: dict[str, tuple[Any, Any, int]]

    @property
    def any(self) -> bool:
        return bool(self.changed or self.added or self.gone)


def compare_sweeps(old: Iterable[RunSpec], new: Iterable[RunSpec]) -> Changes:
    """Return what changed from one version of a sweep to the next."""
    old_runs, new_runs = list(old), list(new)
    old_ids = {run.run_id for run in old_runs}
    new_ids = {run.run_id for run in new_runs}
    before = {_point(run): run for run in old_runs if run.run_id not in new_ids}
    fields: dict[str, tuple[Any, Any, int]] = {}
    changed = added = 0
    for run in new_runs:
        if run.run_id in old_ids:
            continue
        was = before.pop(_point(run), None)
        if was is None:
            added += 1
            continue
        changed += 1
        for path, values in _differences(was.identity(), run.identity()):
            count = fields[path][2] if path in fields else 0
            fields[path] = (*values, count + 1)
    same = len(old_ids & new_ids)
    return Changes(same, changed, added, tuple(before.values()), fields)


def _point(run: RunSpec) -> tuple[Any, ...]:
    control = (run.control.kind, run.control.setting)
    return run.model.name, run.objective.kind, run.objective.data.label, control, run.seed


def _differences(old: Any, new: Any, path: str = "") -> Iterable[tuple[str, tuple[Any, Any]]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            inner = f"{path}.{key}" if path else key
            yield from _differences(old.get(key), new.get(key), inner)
    elif old != new:
        yield path, (old, new)
