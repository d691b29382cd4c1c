"""Which runs a verdict on a control would rest on, read off the plan alone."""

from __future__ import annotations

import pytest
from planted_paper import paper_runs
from planted_store import run_spec
from varied_settings import two_values, varying_settings

from sweeps.declaration.matched_seeds import matched_seeds
from sweeps.spec import EqualStep, LayerClip, Standard


def described(found):
    return [
        (one.first.optimizer.learning_rate, one.first.control.kind, one.matched)
        for one in found.conditions
    ]


def test_seeds_are_matched_with_all_other_settings_equal():
    runs = [
        run_spec("m", "clm", control, seed, learning_rate=rate)
        for rate, control, seeds in (
            (1e-3, "standard", (0, 1, 2)),
            (1e-4, "standard", (7, 8)),
            (1e-3, "equal_step", (1, 2, 3)),
            (1e-4, "equal_step", (0, 1)),
            (1e-3, LayerClip(max_norm=0.5), (0,)),
        )
        for seed in seeds
    ]
    found = matched_seeds(runs)
    assert described(found) == [
        (1e-3, "equal_step", [1, 2]),
        (1e-4, "equal_step", []),
        (1e-3, "layer_clip", [0]),
    ]
    assert found.standard_only == 0
    assert found.with_enough == 0


def test_each_setting_of_a_control_is_a_condition_of_its_own():
    controls = [EqualStep(), EqualStep(target="median"), EqualStep(target="median", scope="all")]
    controls += [LayerClip(max_norm=norm) for norm in (0.1, 0.2)]
    runs = [run_spec("m", "mlm", control, 4) for control in ("standard", *controls)]
    found = matched_seeds(runs)
    assert [one.first.control for one in found.conditions] == controls
    assert all(one.matched == [4] for one in found.conditions)


SHARED = [one for one in varying_settings() if one.path[0] != "control"]


@pytest.mark.parametrize("setting", SHARED, ids=lambda one: one.name)
def test_any_setting_keeps_a_standard_run_from_being_a_counterpart(setting):
    ours, other = two_values(setting)
    standard = [run.model_copy(update={"control": Standard()}) for run in (other, ours)]
    (apart,) = matched_seeds([ours, standard[0]]).conditions
    assert apart.matched == []
    assert setting.name in apart.differs
    # Of another kind of a part its options are said, too.
    parts = {one.name: one.path[0] for one in SHARED}
    assert {parts[name] for name in apart.differs} == {setting.path[0]}
    (alike,) = matched_seeds([ours, *standard]).conditions
    assert (alike.matched, alike.differs) == ([ours.seed], ())


def test_runs_of_another_model_or_objective_are_no_counterparts():
    ours = run_spec("m", "clm", "equal_step")
    named = ours.objective.model_copy(update={"name": "texts"})
    others = [
        run_spec("other", "clm", "standard"),
        run_spec("m", "classification", "standard"),
        ours.model_copy(update={"control": Standard(), "objective": named}),
    ]
    (found,) = matched_seeds([ours, *others]).conditions
    assert (found.matched, found.differs) == ([], ())


def test_the_nearest_standard_run_says_what_differs():
    ours = run_spec("m", "clm", "equal_step", learning_rate=1e-4, steps=40)
    far = run_spec("m", "clm", "standard", learning_rate=1e-3, steps=20, probe_every=5)
    near = run_spec("m", "clm", "standard", learning_rate=1e-4, steps=20)
    (found,) = matched_seeds([far, ours, near]).conditions
    assert found.differs == ("steps",)


def test_conditions_under_standard_only_are_counted():
    found = matched_seeds(run for run, _ in paper_runs())
    assert (len(found.conditions), found.standard_only, found.with_enough) == (18, 23, 15)
    assert matched_seeds([]).conditions == ()


@pytest.mark.parametrize(
    ("standard", "controlled", "n", "lacks"),
    [
        ((0, 1, 2, 3, 4), (0, 1, 2), 5, ([3, 4], [])),
        ((0, 1), (0,), 4, ([1, 2, 3], [2, 3])),
        ((0, 1), (5, 6), 3, ([0, 1], [5])),
        ((), (3,), 2, ([0], [3, 0])),
        ((0, 1, 2, 3), (0, 1, 2, 3), 3, ([], [])),
    ],
)
def test_seeds_with_one_side_are_completed_before_new_ones_are_taken(
    standard, controlled, n, lacks
):
    runs = [run_spec("m", "clm", "standard", seed) for seed in standard]
    runs += [run_spec("m", "clm", "equal_step", seed) for seed in controlled]
    (found,) = matched_seeds(runs).conditions
    assert found.lacks(n) == lacks
