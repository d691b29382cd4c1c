"""Which runs of a plan a verdict on a control would rest on, before anything is read or run.

A condition is planned under a control. Its slope is compared with that of standard training, seed
by seed, all other settings equal: by the names of ``settings``, so that a setting which is added
later keeps apart here what it keeps apart in ``findings.persistence``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sweeps.declaration.settings import Scalar, Setting, condition_settings
from sweeps.spec import RunSpec, Standard

# Of matched seeds; with fewer a condition has no verdict.
FEWEST_SEEDS = 3

# Values of the settings of a condition, those of its control left out.
Key = tuple[Scalar, ...]


@dataclass(frozen=True, eq=False)
class Condition:
    """One condition under a control, with the standard runs that it is compared with.

    Attributes:
        key: what both sides have in common.
        controlled: its runs by seed.
        standard: standard runs with the same settings, by seed.
        differs: where there is no such run, the settings in which the nearest standard run of its
            model and objective differs; empty where there is none of these either.
    """

    key: Key
    controlled: Mapping[int, RunSpec]
    standard: Mapping[int, RunSpec]
    differs: tuple[str, ...] = ()

    @property
    def first(self) -> RunSpec:
        return next(iter(self.controlled.values()))

    @property
    def matched(self) -> list[int]:
        """Seeds that are planned both ways."""
        return sorted(self.controlled.keys() & self.standard.keys())

    def lacks(self, n: int) -> tuple[list[int], list[int]]:
        """Return the seeds to add, under the control and under standard, for n matched ones.

        Seeds that have one side come first, for they cost one run and not two.
        """
        ours, theirs = set(self.controlled), set(self.standard)
        pool = [*sorted(theirs - ours), *sorted(ours - theirs)]
        short = max(n - len(self.matched), 0)
        unused = (seed for seed in range(len(ours | theirs) + short) if seed not in ours | theirs)
        pool += [next(unused) for _ in range(short - len(pool))]
        chosen = pool[:short]
        return (
            [seed for seed in chosen if seed not in ours],
            [seed for seed in chosen if seed not in theirs],
        )


@dataclass(frozen=True, eq=False)
class Matched:
    """The conditions of a plan that a control is asked about, and how many have none."""

    conditions: tuple[Condition, ...]
    standard_only: int

    @property
    def with_enough(self) -> int:
        """How many conditions have the seeds without which there is no verdict."""
        return sum(1 for one in self.conditions if len(one.matched) >= FEWEST_SEEDS)


def matched_seeds(runs: Iterable[RunSpec]) -> Matched:
    """Return every condition planned under a control, in the order of the runs."""
    shared: list[Setting] = []
    own: list[Setting] = []
    standard: dict[Key, dict[int, RunSpec]] = {}
    controlled: dict[tuple[Key, Key], dict[int, RunSpec]] = {}
    keys: dict[tuple[object, ...], tuple[Key, Key]] = {}
    runs = list(runs)  # kept: their parts are known by their identity
    for run in runs:
        if not shared:
            for one in condition_settings(type(run)):
                (own if one.path[0] == "control" else shared).append(one)
        alike = run.but_for_the_seed()
        if alike not in keys:
            said = (tuple(one.value(run) for one in some) for some in (shared, own))
            keys[alike] = next(said), next(said)
        key, control = keys[alike]
        if isinstance(run.control, Standard):
            standard.setdefault(key, {})[run.seed] = run
        else:
            controlled.setdefault((key, control), {})[run.seed] = run
    found = [
        Condition(
            key,
            ours,
            standard.get(key, {}),
            () if key in standard else _nearest(key, standard, shared),
        )
        for (key, _), ours in controlled.items()
    ]
    asked = {one.key for one in found}
    return Matched(tuple(found), sum(1 for key in standard if key not in asked))


def _nearest(key: Key, standard: Iterable[Key], settings: list[Setting]) -> tuple[str, ...]:
    """Return the fewest settings in which standard runs of a model and objective differ."""
    heads = [k for k, one in enumerate(settings) if one.name in ("model", "objective")]
    differences = [
        tuple(one.name for k, one in enumerate(settings) if key[k] != other[k])
        for other in standard
        if all(key[k] == other[k] for k in heads)
    ]
    return min(differences, key=len, default=())
