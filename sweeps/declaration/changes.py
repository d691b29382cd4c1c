"""What became of a sweep when its file was edited: the same, changed field by field, or gone.

A run that is in both versions has not changed. Of the others, one is another version of another
when model, objective, control and seed are the same: those are what a run is of, the rest is how it
is done. Among several of one such group those pair first that differ in the fewest settings. What
finds no partner was added, or is gone.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from sweeps.declaration.settings import HEADS, SEED, Scalar, Setting, condition_settings
from sweeps.spec import RunSpec

# Sets of settings that may differ, tried in a group before what is left is paired in order. All
# are tried up to seven settings of which no pair must differ.
MOST_SETS = 128


@dataclass(frozen=True)
class FieldChange:
    """A setting that went from one value to another in so many runs."""

    name: str
    old: Scalar
    new: Scalar
    runs: int


@dataclass(frozen=True)
class Changes:
    """Runs of the new version by what they were in the old one.

    ``changed`` runs were others before; ``fields`` says in what, in the order of the settings and
    the most runs first.
    """

    same: int
    changed: int
    added: int
    gone: tuple[RunSpec, ...]
    fields: tuple[FieldChange, ...]

    @property
    def any(self) -> bool:
        return bool(self.changed or self.added or self.gone)


def compare_sweeps(old: Iterable[RunSpec], new: Iterable[RunSpec]) -> Changes:
    """Return what changed from one version of a sweep to the next."""
    old_runs, new_runs = list(old), list(new)
    old_ids = {run.run_id for run in old_runs}
    new_ids = {run.run_id for run in new_runs}
    before = _groups(run for run in old_runs if run.run_id not in new_ids)
    after = _groups(run for run in new_runs if run.run_id not in old_ids)
    counts: Counter[tuple[Setting, Scalar, Scalar]] = Counter()
    gone: list[RunSpec] = []
    changed = added = 0
    for key in before.keys() | after.keys():
        were, are = before.get(key, []), after.get(key, [])
        pairs = _pairs([point for _, point in were], [point for _, point in are])
        changed += len(pairs)
        added += len(are) - len(pairs)
        paired = {a for a, _ in pairs}
        gone += [run for k, (run, _) in enumerate(were) if k not in paired]
        for a, b in pairs:
            (run, was), (_, now) = were[a], are[b]
            settings = _settings(type(run))
            for setting, x, y in zip(settings, was, now, strict=True):
                if x != y:
                    counts[setting, x, y] += 1
    order = {run.run_id: k for k, run in enumerate(old_runs)}
    gone.sort(key=lambda run: order[run.run_id])
    return Changes(len(old_ids & new_ids), changed, added, tuple(gone), _fields(counts))


def _fields(counts: Counter[tuple[Setting, Scalar, Scalar]]) -> tuple[FieldChange, ...]:
    places = {setting: k for k, setting in enumerate(condition_settings())}
    listed = sorted(
        counts.items(),
        key=lambda item: (
            places.get(item[0][0], len(places)),
            -item[1],
            str(item[0][1]),
            str(item[0][2]),
        ),
    )
    return tuple(FieldChange(setting.name, a, b, n) for (setting, a, b), n in listed)


_Point = tuple[Scalar, ...]


def _settings(spec: type[RunSpec]) -> list[Setting]:
    """Return the settings that may change from one version of a run to the next."""
    return [one for one in condition_settings(spec) if one.name not in HEADS]


def _groups(runs: Iterable[RunSpec]) -> dict[_Point, list[tuple[RunSpec, _Point]]]:
    """Return runs by model, objective, control and seed, each with its other settings."""
    groups: dict[_Point, list[tuple[RunSpec, _Point]]] = {}
    for run in runs:
        named = {one.name: one for one in condition_settings(type(run))}
        key = (*(named[head].value(run) for head in HEADS), getattr(run, SEED))
        point = tuple(one.value(run) for one in _settings(type(run)))
        groups.setdefault(key, []).append((run, point))
    return groups


def _pairs(old: Sequence[_Point], new: Sequence[_Point]) -> list[tuple[int, int]]:
    """Return pairs of places in both lists, as many as the shorter has, the most alike first.

    For each set of settings, the smaller ones first, points pair that are equal in all others.
    Settings of which the two sides share no value differ in every pair and need no trying, so that
    an edit of any number of them takes one pass.
    """
    left, right = list(range(len(old))), list(range(len(new)))
    pairs: list[tuple[int, int]] = []
    if not left or not right:
        return pairs
    width = len(old[0])
    values = [({p[k] for p in old}, {p[k] for p in new}) for k in range(width)]
    open_ones = [k for k, (a, b) in enumerate(values) if a & b and len(a | b) > 1]
    for ignored in itertools.islice(_subsets(open_ones), MOST_SETS):
        kept = [k for k in open_ones if k not in ignored]
        pairs += _matched(old, new, left, right, kept)
        if not left or not right:
            return pairs
    return [*pairs, *zip(left, right, strict=False)]


def _subsets(items: Sequence[int]) -> Iterator[tuple[int, ...]]:
    return itertools.chain.from_iterable(
        itertools.combinations(items, size) for size in range(len(items) + 1)
    )


def _matched(
    old: Sequence[_Point],
    new: Sequence[_Point],
    left: list[int],
    right: list[int],
    kept: Sequence[int],
) -> list[tuple[int, int]]:
    """Pair places whose points agree in ``kept``, in order; take them from ``left``, ``right``."""
    waiting: dict[_Point, list[int]] = {}
    for a in reversed(left):
        waiting.setdefault(tuple(old[a][k] for k in kept), []).append(a)
    pairs = []
    for b in right:
        alike = waiting.get(tuple(new[b][k] for k in kept))
        if alike:
            pairs.append((alike.pop(), b))
    taken_left, taken_right = {a for a, _ in pairs}, {b for _, b in pairs}
    left[:] = [a for a in left if a not in taken_left]
    right[:] = [b for b in right if b not in taken_right]
    return pairs
