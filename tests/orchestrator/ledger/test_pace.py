"""Throughput, time left and failures from what a store says."""

from small_run import make_run

from orchestrator.ledger.pace import failures_by_cause, pace


def said(state, **more):
    row = {"state": state, "checkpoint": 0, "seconds": 0, "started": None, "ended": None}
    return {**row, **more}


def finished(begin, end):
    at = "2026-01-01T00:{:02d}:00+00:00"
    times = {"started": at.format(begin), "ended": at.format(end)}
    return said("finished", seconds=60.0 * (end - begin), **times)


def test_time_left_is_what_is_left_at_the_pace_of_what_is_done():
    runs = [make_run(seed=seed) for seed in range(5)]
    rows = [finished(0, 2), finished(2, 4), said("running"), said("running"), said("waiting")]
    found = pace(runs, rows)
    assert found.runs_per_hour == 30
    assert found.seconds_left == 3 * 120 / 2


def test_a_checkpoint_counts_as_done_and_nothing_is_guessed_before_a_run_has_finished():
    runs = [make_run(seed=seed) for seed in range(2)]
    half = said("running", checkpoint=runs[0].steps)
    assert pace(runs, [finished(0, 2), half]).seconds_left == 0
    assert pace(runs, [half, half]).runs_per_hour is None
    assert pace(runs, [finished(0, 2), said("waiting")]).seconds_left is None


def test_failures_are_counted_by_what_they_said():
    rows = [
        {"state": "failed", "error": "ValueError: x"},
        {"state": "lost", "error": None},
        {"state": "failed", "error": "ValueError: x"},
        {"state": "finished", "error": None},
    ]
    assert failures_by_cause(rows) == [("ValueError: x", 2), ("its process is gone", 1)]
