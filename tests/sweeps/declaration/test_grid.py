"""The points of a block against an obvious reference: every combination, looked up name by name."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.declaration.entries.sweep_spec import SweepSpec
from sweeps.declaration.grid import points_of
from sweeps.declaration.yaml_source import YamlSource
from sweeps.errors import UserError

NAMES = ("batch_size", "seed", "steps")
VALUES = st.integers(1, 3)
SAID = st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, VALUES))
LISTS = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(NAMES, st.lists(VALUES, min_size=1, max_size=3, unique=True)),
)
FILE = {
    "name": "small",
    "models": {"a": {"standin": "gpt2"}},
    "objectives": {"clm": {"data": {"builtin": "python-source"}}},
    "probe": {"data": {"builtin": "python-docs"}, "rows": 16},
}


def points(defaults, **block):
    text = json.dumps({**FILE, "defaults": defaults, "blocks": [{"name": "x", **block}]})
    spec = YamlSource.parse(text, "sweep.yaml").validate(SweepSpec)
    return list(points_of(spec, spec.blocks[0], "sweep.yaml:1"))


def grid_of(defaults, said, lists):
    """Every combination of the lists, which win over the block's words, and these over defaults."""
    if not lists:
        return []
    found = []
    for first in lists.get(NAMES[0], [None]):
        for second in lists.get(NAMES[1], [None]):
            for third in lists.get(NAMES[2], [None]):
                point = {}
                for name, value in zip(NAMES, (first, second, third), strict=True):
                    for some in ({name: value} if value is not None else {}, said, defaults):
                        if name in some and name not in point:
                            point[name] = some[name]
                found.append(point)
    return found


def in_any_order(some):
    return sorted(json.dumps(one, sort_keys=True) for one in some)


@given(SAID, SAID, LISTS, st.lists(SAID.filter(bool), max_size=2), st.data())
def test_a_block_is_its_grid_less_what_it_excludes_plus_what_it_includes(
    defaults, said, lists, included, data
):
    said = {name: value for name, value in said.items() if name not in lists}
    whole = grid_of(defaults, said, lists)
    excluded = [] if not whole else data.draw(st.lists(st.sampled_from(whole), max_size=2))
    left = [point for point in whole if point not in excluded]
    expected = left + [{**defaults, **said, **point} for point in included]
    found = points(defaults, set=said, grid=lists, exclude=excluded, include=included)
    assert in_any_order(found) == in_any_order(expected)


def test_what_a_block_says_wins_over_the_defaults_and_what_it_includes_over_both():
    found = points(
        {"steps": 1, "batch_size": 1},
        set={"steps": 2},
        grid={"seed": [7]},
        include=[{"seed": 8, "steps": 3}],
    )
    assert found == [
        {"steps": 2, "batch_size": 1, "seed": 7},
        {"steps": 3, "batch_size": 1, "seed": 8},
    ]


def test_an_exclude_of_a_part_takes_out_every_point_that_agrees_with_all_of_it():
    grid = {"seed": [1, 2], "steps": [3, 4]}
    assert points({}, grid=grid, exclude=[{"seed": 1}]) == [
        {"seed": 2, "steps": 3},
        {"seed": 2, "steps": 4},
    ]
    assert len(points({}, grid=grid, exclude=[{"seed": 1, "steps": 3}])) == 3


@pytest.mark.parametrize("exclude", [{"seed": 9}, {"seed": 1, "steps": 9}, {"batch_size": 1}])
def test_an_exclude_that_takes_nothing_out_is_refused_whatever_the_others_do(exclude):
    with pytest.raises(UserError, match="matches no point of its grid"):
        points({}, grid={"seed": [1, 2], "steps": [3]}, exclude=[{"seed": 1}, exclude])
