"""What a plan can decide, condition by condition."""

from __future__ import annotations

import statistics

import pytest
from planted_paper import paper_runs
from planted_store import run_spec, write_run

from sweeps.findings.deciding import deciding
from sweeps.findings.persistence import compare
from sweeps.reading.tables import Tables
from sweeps.spec import EqualStep, LayerClip
from sweeps.statistics.profiles import measure
from sweeps.store.store import Store


def named(model, objective, control, seed, name, **options):
    """Return a run whose objective goes by a name of the sweep's own."""
    run = run_spec(model, objective, control, seed, **options)
    return run.model_copy(update={"objective": run.objective.model_copy(update={"name": name})})


def other_shape():
    """Two rates, a control with two settings and another beside it, seeds that do not all match."""
    runs = []
    for rate, seeds in ((1e-3, range(5)), (1e-4, (0, 2, 9))):
        runs += [
            named("m", "classification", "standard", s, "topic", learning_rate=rate) for s in seeds
        ]
    for control, rate, seeds in (
        (LayerClip(max_norm=0.1), 1e-3, (0, 1, 2, 3)),
        (LayerClip(max_norm=0.2), 1e-3, (1, 6)),
        (LayerClip(max_norm=0.2), 1e-4, (0, 2)),
        (EqualStep(target=0.001), 1e-3, (0, 1, 2)),
        (EqualStep(target=0.001), 1e-4, (1, 3)),
    ):
        runs += [
            named("m", "classification", control, s, "topic", learning_rate=rate) for s in seeds
        ]
    runs += [named("m", "contrastive", "standard", 0, "mood", learning_rate=1e-3)]
    return runs


def test_matched_seeds_are_those_of_the_comparison_when_all_has_finished(tmp_path):
    store, runs = Store.at(str(tmp_path / "store")), other_shape()
    for run in runs:
        write_run(store, run, [0.1 + 0.1 * i + 0.001 * run.seed for i in range(4)])
    profiles = measure(Tables(store, runs, include_running=False))
    planned = deciding(runs)
    for control in ("layer_clip", "equal_step"):
        table = compare(profiles, control=control).sort("learning_rate")
        rows = [one for one in planned.rows if one.condition.first.control.kind == control]
        assert sorted(table["n"].to_list()) == sorted(one.n for one in rows)
    assert planned.standard_only == 1


def test_the_study_lacks_seeds_where_it_claims_most():
    found = deciding([run for run, _ in paper_runs()], target=0.6)
    assert [one.n for one in found.rows] == [3] * 15 + [2, 2, 1]
    assert [one.runs_more for one in found.rows] == [0] * 15 + [2, 2, 3]
    assert (found.runs_more, len(found.surely()), len(found.never())) == (7, 15, 3)
    assert [one.persists > 0 for one in found.rows] == [True] * 15 + [False] * 3
    surer = deciding([run for run, _ in paper_runs()], target=0.8)
    assert (len(surer.surely()), len(surer.perhaps()), surer.runs_more) == (0, 15, 28)


def test_standard_runs_that_two_controls_lack_are_counted_once():
    controls = ("standard", "equal_step", "layer_clip")
    runs = [run_spec("m", "clm", control, seed) for control in controls for seed in (0, 1)]
    found = deciding(runs, cv=0.02)
    assert [one.runs_more for one in found.rows] == [2, 2]
    assert found.runs_more == 3


def spread_runs(model, slopes):
    """Return runs of both sides, and the slopes of the standard ones by run id and stack."""
    runs = [run_spec(model, "clm", "standard", seed) for seed in range(len(slopes))]
    known = {run.run_id: {None: slope} for run, slope in zip(runs, slopes, strict=True)}
    return [*runs, *(run_spec(model, "clm", "equal_step", seed) for seed in range(3))], known


def test_the_spread_is_measured_where_three_runs_finished_and_their_median_elsewhere():
    tight, known = spread_runs("tight", [-0.30, -0.31, -0.32, -0.33])
    loose, more = spread_runs("loose", [0.2, 0.4, 0.3])
    few, rest = spread_runs("few", [0.1, 0.9])
    slopes = known | more | rest | {"of another sweep": {None: 5.0}}
    rows = deciding([*tight, *loose, *few], slopes=slopes).rows
    cvs = [statistics.stdev([0.30, 0.31, 0.32, 0.33]) / 0.315, 0.1 / 0.3]
    assert [one.spread.cv for one in rows] == pytest.approx([*cvs, sum(cvs) / 2])
    assert [one.spread.source for one in rows] == ["measured", "measured", "median"]
    assert [one.spread.seeds for one in rows] == [4, 3, None]
    assert rows[0].persists > 0.9 > 0.5 > rows[1].persists
    assert rows[0].needed == 3 < rows[1].needed


def test_a_stated_spread_goes_before_a_measured_one_and_nothing_measured_is_said():
    runs, slopes = spread_runs("m", [0.2, 0.4, 0.3])
    assert deciding(runs, cv=0.07, slopes=slopes).rows[0].spread.cv == 0.07
    assert deciding(runs).rows[0].spread.source == "assumed"
    around_zero, slopes = spread_runs("m", [0.25, 0.0, -0.25])
    assert deciding(around_zero, slopes=slopes).rows[0].spread.source == "assumed"


def test_a_spread_that_no_number_of_seeds_overcomes_lacks_no_count_of_runs():
    runs, slopes = spread_runs("m", [0.1, 0.9, -0.4])
    found = deciding(runs, slopes=slopes)
    assert (found.rows[0].needed, found.rows[0].runs_more, found.runs_more) == (None, None, 0)
