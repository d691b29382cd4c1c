"""What follows from a failure, as the tables of the design have it; nodes are letters."""

import pytest

from orchestrator.policy.failures import ALIKE, LOSSES, NODE_FAILURES, Failures

HERE = {"a", "b"}


def test_an_error_is_tried_once_more_elsewhere_and_then_fails_with_its_text():
    failures = Failures()
    first = failures.erred("r", ["a"], "ValueError: 1\n  in f", HERE)
    assert (first.next, first.barred) == ("again", {"a"})
    second = failures.erred("r", ["b"], "ValueError: 2\n  in g", HERE)
    assert (second.next, second.text) == ("failed", "ValueError: 2\n  in g")


def test_losses_count_without_progress_and_on_nodes_that_stay():
    failures = Failures()
    for _ in range(LOSSES - 1):
        assert failures.lost("r", ["a"], "killed", HERE).next == "again"
    failures.got_further("r", ["a"])
    for _ in range(LOSSES - 1):
        assert failures.lost("r", ["a"], "killed", HERE).next == "again"
    assert failures.lost("r", ["c"], "its node died", HERE).next == "again"
    assert failures.lost("r", ["a"], "killed\n of a log", HERE).text == (
        "lost 3 times without getting further; last: killed\n of a log"
    )


@pytest.mark.parametrize(("nodes", "present"), [("a", "a"), ("ab", "ab"), ("a", "ab")])
def test_losses_count_on_the_only_nodes_too(nodes, present):
    failures = Failures()
    verdicts = [failures.lost("r", nodes, "killed", set(present)).next for _ in range(LOSSES)]
    assert verdicts == [*["again"] * (LOSSES - 1), "failed"]


def test_a_node_is_set_aside_for_different_runs_only_and_while_there_is_another():
    for runs, present, aside in (("rrr", HERE, []), ("rst", HERE, ["a"]), ("rst", {"a"}, [])):
        failures = Failures()
        for run in runs:
            failures.lost(run, ["a"], "killed", present)
        assert list(failures.aside) == aside


def test_a_success_between_clears_a_node():
    failures = Failures()
    for run in "rs":
        failures.lost(run, ["a"], "killed", HERE)
    failures.got_further("t", ["a"])
    failures.lost("u", ["a"], "killed", HERE)
    assert not failures.aside


def test_what_fails_on_a_node_that_works_too_gives_a_node_back():
    failures = Failures()
    failures.got_further("t", ["b"])
    for run in "rst":
        failures.erred(run, ["a"], f"ValueError: {run}", HERE)
    assert list(failures.aside) == ["a"]
    failures.erred("r", ["b"], "ValueError: r", HERE)
    assert not failures.aside


def test_two_nodes_that_fail_alike_are_both_set_aside_and_no_run_is_lost_for_it():
    failures, here = Failures(), ["a", "b", "c", "d"]
    for run in "rst":
        assert failures.erred(run, ["a"], "RuntimeError: ECC", here).next == "again"
    for run in "rst":
        assert failures.erred(run, ["b"], "RuntimeError: ECC", here).next == "again"
    assert set(failures.aside) == {"a", "b"}
    assert failures.erred("r", ["c"], "RuntimeError: ECC", here).next == "again"
    assert failures.erred("r", ["d"], "RuntimeError: ECC", here).next == "failed"


def test_few_runs_may_be_on_a_node_until_it_has_shown_that_it_works():
    failures = Failures()
    assert failures.room_on("a") == NODE_FAILURES
    failures.lost("r", ["a"], "killed", HERE)
    assert failures.room_on("a") == NODE_FAILURES - 1
    failures.got_further("s", ["a"])
    assert failures.room_on("a") is None
    failures.left("a")
    assert failures.room_on("a") == NODE_FAILURES


@pytest.mark.parametrize(
    ("texts", "stops"),
    [
        (["KeyError: 'x7' at /a/b 3"] * ALIKE, True),
        ([f"KeyError at step {k} of {k:06x}" for k in range(ALIKE)], True),
        (["KeyError: x"] * (ALIKE - 1), False),
        (["KeyError: x"] * (ALIKE - 1) + ["ValueError: y"], False),
    ],
)
def test_so_many_alike_in_a_row_stop_the_sweep(texts, stops):
    failures = Failures()
    for number, text in enumerate(texts):
        failures.ended(str(number), "failed", text)
    assert (failures.stopped is not None) == stops


def test_a_run_that_finishes_between_begins_the_count_anew():
    failures = Failures()
    for number in range(3 * ALIKE):
        failures.ended(str(number), "finished" if number % ALIKE == 5 else "failed", "KeyError")
    assert failures.stopped is None
