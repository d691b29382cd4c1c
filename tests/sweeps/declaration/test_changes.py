"""An edited sweep: what is said of it is what was edited, and each run is counted once."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted_store import run_spec

from sweeps.declaration.changes import FieldChange, _pairs, compare_sweeps
from sweeps.declaration.expand import read_sweep
from sweeps.spec import RunSpec

RUNS = read_sweep("sweeps/library/demo.yaml").runs


def study(
    models: tuple[str, ...] = ("a", "b"),
    rates: tuple[float, ...] = (1e-3, 1e-4),
    seeds: tuple[int, ...] = (0, 1, 2),
    **more: Any,
) -> list[RunSpec]:
    return [
        run_spec(model, "classification", seed=seed, learning_rate=rate, **more)
        for model, rate, seed in itertools.product(models, rates, seeds)
    ]


def edited(run: RunSpec, **update: Any) -> RunSpec:
    """The run with settings of its optimizer, or of its own, replaced."""
    inner = {k: v for k, v in update.items() if k in type(run.optimizer).model_fields}
    outer = {k: v for k, v in update.items() if k not in inner}
    optimizer = run.optimizer.model_copy(update=inner)
    return run.model_copy(update={**outer, "optimizer": optimizer})


def counts(old: list[RunSpec], new: list[RunSpec]) -> tuple[int, int, int, int]:
    changes = compare_sweeps(old, new)
    return changes.same, changes.changed, changes.added, len(changes.gone)


def test_the_same_sweep_has_not_changed() -> None:
    changes = compare_sweeps(RUNS, RUNS)
    assert (changes.same, changes.any) == (len(RUNS), False)


def test_a_changed_setting_is_listed_with_both_values_and_its_runs() -> None:
    new = [
        run.model_copy(update={"batch_size": 32}) if run.model.name == "tiny-pythia" else run
        for run in RUNS
    ]
    changes = compare_sweeps(RUNS, new)
    of_pythia = sum(run.model.name == "tiny-pythia" for run in RUNS)
    assert 0 < of_pythia < len(RUNS)
    assert (changes.same, changes.changed) == (len(RUNS) - of_pythia, of_pythia)
    assert (changes.added, changes.gone) == (0, ())
    assert changes.fields == (FieldChange("batch_size", 16, 32, of_pythia),)


def test_runs_come_and_go() -> None:
    changes = compare_sweeps(RUNS[:-4], RUNS[4:])
    assert (changes.same, changes.changed, changes.added) == (len(RUNS) - 8, 0, 4)
    assert {run.run_id for run in changes.gone} == {run.run_id for run in RUNS[:4]}


def test_fewer_steps_of_a_sweep_over_learning_rates_are_just_that() -> None:
    old, new = study(steps=200), study(steps=100)
    changes = compare_sweeps(old, new)
    assert counts(old, new) == (0, 12, 0, 0)
    assert changes.fields == (FieldChange("steps", 200, 100, 12),)


def test_two_settings_edited_at_once_are_both_listed() -> None:
    old = study()
    changes = compare_sweeps(old, [edited(run, steps=30, weight_decay=0.1) for run in old])
    assert (changes.changed, changes.added, changes.gone) == (12, 0, ())
    assert changes.fields == (
        FieldChange("steps", 20, 30, 12),
        FieldChange("weight_decay", 0.0, 0.1, 12),
    )


def test_a_seed_is_added_and_never_a_change() -> None:
    assert counts(study(seeds=(0, 1)), study(seeds=(0, 1, 2))) == (8, 0, 4, 0)
    assert counts(study(seeds=(0, 1)), study(seeds=(0, 2))) == (4, 0, 4, 4)
    assert counts(study(seeds=(0, 1)), study(seeds=(0, 1, 2), steps=30)) == (0, 8, 4, 0)


def test_a_model_that_was_removed_is_gone_whatever_else_was_edited() -> None:
    changes = compare_sweeps(study(), study(models=("b", "c"), steps=30))
    assert (changes.changed, changes.added, len(changes.gone)) == (6, 6, 6)
    assert {run.model.name for run in changes.gone} == {"a"}
    assert changes.fields == (FieldChange("steps", 20, 30, 6),)


def test_values_that_two_models_swap_are_two_changes() -> None:
    old = [*study(("a",), (1e-3,)), *study(("b",), (1e-4,))]
    new = [*study(("a",), (1e-4,)), *study(("b",), (1e-3,))]
    changes = compare_sweeps(old, new)
    assert (changes.changed, changes.added, changes.gone) == (6, 0, ())
    assert set(changes.fields) == {
        FieldChange("learning_rate", 1e-3, 1e-4, 3),
        FieldChange("learning_rate", 1e-4, 1e-3, 3),
    }


def test_a_swept_value_that_another_replaces_leaves_the_others_as_they_are() -> None:
    changes = compare_sweeps(study(rates=(1e-3, 1e-4)), study(rates=(1e-4, 1e-5)))
    assert (changes.same, changes.changed) == (6, 6)
    assert changes.fields == (FieldChange("learning_rate", 1e-3, 1e-5, 6),)


@pytest.mark.parametrize("part", ["probe", "objective"])
def test_another_text_in_a_file_is_a_change_of_its_digest(part: str) -> None:
    old = study()
    data = getattr(old[0], part).data.model_copy(update={"digest": "0" * 40})
    inner = [getattr(run, part).model_copy(update={"data": data}) for run in old]
    new = [run.model_copy(update={part: one}) for run, one in zip(old, inner, strict=True)]
    changes = compare_sweeps(old, new)
    assert (changes.changed, changes.added, changes.gone) == (12, 0, ())
    assert [(field.name, field.runs) for field in changes.fields] == [(f"{part}_digest", 12)]


def test_an_edit_that_also_adds_an_arm_pairs_the_arm_that_was_there() -> None:
    changes = compare_sweeps(study(rates=(1e-3,)), study(rates=(1e-4, 1e-3), steps=30))
    assert (changes.changed, changes.added, changes.gone) == (6, 6, ())
    assert changes.fields == (FieldChange("steps", 20, 30, 6),)


point = st.fixed_dictionaries(
    {
        "learning_rate": st.sampled_from([1e-3, 1e-4, 1e-5]),
        "weight_decay": st.sampled_from([0.0, 0.1]),
        "steps": st.sampled_from([20, 30]),
        "seed": st.sampled_from([0, 1]),
        "schedule": st.sampled_from(["linear", "constant"]),
    }
)
versions = st.lists(point, max_size=12, unique_by=lambda p: tuple(sorted(p.items())))
BASE = run_spec("a", "classification")


@given(versions, versions)
def test_every_run_is_counted_once(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> None:
    before, after = ([edited(BASE, **point) for point in side] for side in (old, new))
    changes = compare_sweeps(before, after)
    assert changes.same + changes.changed + changes.added == len(after)
    assert changes.same + changes.changed + len(changes.gone) == len(before)
    assert all(field.old != field.new and field.runs > 0 for field in changes.fields)
    known = {run.run_id for run in before} & {run.run_id for run in after}
    assert changes.same == len(known)
    back = compare_sweeps(after, before)
    assert (back.changed, len(back.gone)) == (changes.changed, changes.added)


points = st.lists(
    st.tuples(*[st.integers(0, 2)] * 2, *[st.integers(0, 1)] * 3), max_size=10, unique=True
)


@given(points, points)
def test_the_most_alike_pair_first(old: list[tuple[int, ...]], new: list[tuple[int, ...]]) -> None:
    pairs = _pairs(old, new)
    assert len(pairs) == min(len(old), len(new))
    left, right = ({pair[k]: pair for pair in pairs} for k in (0, 1))
    assert len(left) == len(right) == len(pairs)

    def distance(i: int, j: int) -> int:
        return sum(x != y for x, y in zip(old[i], new[j], strict=True))

    # Whoever could have had a closer partner has one that is as close, or that partner has.
    for i, j in itertools.product(range(len(old)), range(len(new))):
        rivals = [pair for pair in (left.get(i), right.get(j)) if pair is not None]
        assert any(distance(*pair) <= distance(i, j) for pair in rivals)


def test_an_edit_of_two_settings_of_a_sweep_over_thousands_is_those_two() -> None:
    old = [
        edited(BASE, seed=seed, learning_rate=1e-6 * rate, warmup_steps=warmup)
        for seed, rate, warmup in itertools.product(range(3), range(1, 201), range(10))
    ]
    changes = compare_sweeps(old, [edited(run, weight_decay=0.1, eps=1e-8) for run in old])
    assert (changes.changed, changes.added, changes.gone) == (6000, 0, ())
    assert [field.runs for field in changes.fields] == [6000, 6000]
