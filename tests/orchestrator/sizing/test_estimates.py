"""What a run is expected to take and hold: from FLOPs and memory, or from finished runs."""

import contextlib

import pytest
from planted_store import run_spec, write_run

from orchestrator.policy.occupancy import UNITS, Demand
from orchestrator.sizing.cost import estimate
from orchestrator.sizing.estimates import (
    ASSUMED_FLOPS,
    NOTHING_MEASURED,
    RUNS_PER_GPU,
    START_SECONDS,
    demand_of,
    expected_seconds,
    line_up,
    measure,
)
from orchestrator.sizing.memory import GIB, memory_of
from sweeps.declaration.expand import read_sweep
from sweeps.errors import UserError
from sweeps.files.whole_files import write_json
from sweeps.store.store import Store

PAPER = list(read_sweep("sweeps/library/paper.yaml").runs)


def of(name):
    return next(run for run in PAPER if run.model.name == name)


def test_a_gang_shares_the_work_and_a_shared_gpu_takes_turns():
    run = of("gpt2")
    alone = expected_seconds(run, Demand(), NOTHING_MEASURED) - START_SECONDS
    assert alone == pytest.approx(estimate(run).flops / ASSUMED_FLOPS)
    gang = expected_seconds(run, Demand(gpus=4), NOTHING_MEASURED) - START_SECONDS
    share = expected_seconds(run, Demand.of(0.25), NOTHING_MEASURED) - START_SECONDS
    assert (gang, share) == (pytest.approx(alone / 4), pytest.approx(alone * 4))


def test_a_small_run_takes_a_share_by_memory_and_never_below_one_in_k():
    run = of("gpt2")
    needs = memory_of(run, run.execution).total
    assert demand_of(run, 80 * GIB, crowd=99) == Demand(UNITS // RUNS_PER_GPU)
    assert demand_of(run, 80 * GIB, crowd=99, most=2) == Demand(UNITS // 2)
    assert demand_of(run, 2.9 * needs, crowd=99) == Demand(UNITS // 2)
    assert demand_of(run, 2.2 * needs, crowd=99) == Demand()


def test_nobody_shares_while_another_gpu_is_free_or_memory_is_not_known():
    assert demand_of(of("gpt2"), 80 * GIB, crowd=1) == Demand()
    assert demand_of(of("gpt2"), None, crowd=99) == Demand()


def test_large_models_hold_whole_gpus():
    demands = {one.run.run_id: one.waiting.demand for one in line_up(PAPER, {80 * GIB: 8})}
    for run in PAPER:
        if run.model.name == "pythia-6.9b":
            assert demands[run.run_id].gpus >= 2
        if run.model.name == "opt-1.3b":
            assert demands[run.run_id] == Demand()


def test_a_run_is_sized_for_the_gpus_of_which_it_needs_fewest_the_smallest_of_those():
    pools = {24 * GIB: 4, 80 * GIB: 2, 141 * GIB: 1}
    lined = {one.run.run_id: one for one in line_up(PAPER, pools)}
    as_large = {24 * GIB: 7, 80 * GIB: 3, 141 * GIB: 1}
    alone = {
        size: {one.run.run_id: one for one in _fitting(size, count)}
        for size, count in as_large.items()
    }
    assert len({one.gpu_bytes for one in lined.values()}) > 1
    for run_id, one in lined.items():
        fewest = min(
            (found[run_id].waiting.demand.gpus, size)
            for size, found in alone.items()
            if run_id in found
        )
        assert (one.waiting.demand.gpus, one.gpu_bytes) == fewest


def _fitting(size, gpus):
    for run in PAPER:
        with contextlib.suppress(UserError):
            yield from line_up([run], {size: gpus})


def test_a_run_that_fits_on_no_pool_is_refused():
    with pytest.raises(UserError, match="does not fit"):
        line_up(PAPER, {2 * GIB: 1, 3 * GIB: 1})


def test_where_nothing_is_known_of_the_gpus_or_there_are_none_each_run_holds_one():
    lined = line_up(PAPER, {None: 3})
    assert {one.waiting.demand for one in lined} == {Demand()}
    assert {one.gpu_bytes for one in lined} == {None}


def test_one_run_of_each_model_opens_the_longest():
    waiting = [one.waiting for one in line_up(PAPER, {80 * GIB: 8})]
    opening = {w.run_id for w in waiting if w.opens}
    models = [run.model.name for run in PAPER if run.run_id in opening]
    assert sorted(models) == sorted({run.model.name for run in PAPER})


def test_finished_runs_say_how_long_others_like_them_take(tmp_path):
    store = Store.at(str(tmp_path / "store"))
    runs = [run_spec("tiny", seed=seed) for seed in range(3)]
    other = run_spec("other", seed=0)
    for run, seconds, resumed in ((runs[0], 40.0, 0), (runs[1], 9.0, 2)):
        write_run(store, run, [0.1, 0.2, 0.3])
        path = store.run(run.run_id).attempt_path(1)
        write_json(
            path,
            {"started": "2026-01-01T00:00:00", "ended": None, "cause": "finished", "error": None,
             "seconds": seconds, "resumed_from": resumed},
        )  # fmt: skip
    measured = measure(store, [*runs, other])
    assert measured.seconds(runs[2]) == pytest.approx(40.0)
    assert measured.seconds(other) is None
    assert expected_seconds(runs[2], Demand(), measured) == pytest.approx(40.0)
