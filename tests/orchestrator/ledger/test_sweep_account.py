"""Limits, who is told, and what a sweep's end comes to."""

import contextlib
import math

import pytest
from planted_store import run_spec

from orchestrator.ledger.recovery import Action, MeasureAction
from orchestrator.ledger.sweep_account import (
    NO_LIMITS,
    Limits,
    Listener,
    Listeners,
    Plan,
    Room,
    SweepResult,
)
from orchestrator.sizing.placement import Node, Placement
from sweeps.declaration.expand import Sweep
from sweeps.errors import UserError
from sweeps.spec import is_measurement, measurements_of


# ------------------------------------------------------------------------------ limits
@pytest.mark.parametrize(
    ("name", "called"),
    [("most", "max_concurrent"), ("most_gpus", "max_gpus"), ("runs_per_gpu", "runs_per_gpu")],
)
def test_counts_are_whole_numbers_from_1_on(name, called):
    for value in (1, 2, 1000, None):
        assert getattr(Limits(**{name: value}), name) == value
    for value in (0, -1, 1.0, True, "3"):
        with pytest.raises(UserError, match=f"^{called}={value!r}: give a whole number from 1 on"):
            Limits(**{name: value})


def test_a_budget_is_seconds_above_0():
    for seconds in (1e-9, 1, 0.5, 1e9, None):
        assert Limits(seconds=seconds).seconds == seconds
    for seconds in (0, -0.5, math.inf, math.nan, True, "60"):
        with pytest.raises(UserError, match=r"^time_budget=.*: give seconds above 0"):
            Limits(seconds=seconds)


def test_a_cluster_limits_gpus_where_the_user_does_not():
    assert Limits(most=3).within(8) == Limits(most=3, most_gpus=8)
    assert Limits(most_gpus=2).within(8) == Limits(most_gpus=2)
    assert NO_LIMITS.within(None) == NO_LIMITS.within(0) == NO_LIMITS


def test_limits_are_said_as_the_command_line_takes_them():
    assert NO_LIMITS.as_words() == []
    limits = Limits(most=3, most_gpus=4, runs_per_gpu=2, seconds=60.5)
    assert limits.as_words() == [
        *("--max-concurrent", "3", "--max-gpus", "4"),
        *("--runs-per-gpu", "2", "--time-budget", "60.5"),
    ]
    assert Limits(runs_per_gpu=2).as_words() == ["--runs-per-gpu", "2"]


# ------------------------------------------------------------------------------ plan and room
def test_a_plan_says_what_is_run_measured_and_thrown_away():
    runs = [run_spec(seed=seed) for seed in range(3)]
    measured = measurements_of(runs, ("propagation",))
    measured += measurements_of([run_spec("opt")], ("propagation",))
    plan = Plan(
        Sweep("s", "", "", tuple(runs)),
        None,
        [
            Action(runs[0], "run", "new"),
            Action(runs[1], "skip", "finished"),
            Action(runs[2], "run", "diverged", again=True),
        ],
        measures=[
            MeasureAction(measured[0], "skip", "finished"),
            MeasureAction(measured[1], "measure", "again", again=True),
        ],
    )
    assert plan.to_run == [runs[0], runs[2]]
    assert plan.to_measure == [measured[1]]
    assert plan.again == [runs[2].run_id, measured[1].work_id]


@pytest.mark.parametrize(("gpus", "size"), [(True, 5), (False, 12)])
def test_a_room_is_as_large_as_its_gpus_or_without_any_its_cpus(gpus, size):
    nodes = [Node("a", cpus=8, gpus=4), Node("b", cpus=4, gpus=1)]
    assert Room(Placement(gpus, 1), nodes).size == size


# ------------------------------------------------------------------------------ who is told
class Heard(Listener):
    def __init__(self, name, said):
        self.name, self.said = name, said

    def planned(self, plan):
        self.said.append((self.name, "planned", plan))

    def starting(self, plan, room):
        self.said.append((self.name, "starting", plan, room))

    def event(self, run_id, kind, report):
        self.said.append((self.name, run_id, kind, report))

    def notice(self, text):
        self.said.append((self.name, "notice", text))

    @contextlib.contextmanager
    def running(self):
        self.said.append((self.name, "in"))
        yield
        self.said.append((self.name, "out"))


def test_each_that_listens_is_told_all_in_order():
    said = []
    all_of_them = Listeners(Heard(1, said), Listener(), Heard(2, said))
    all_of_them.planned("plan")
    all_of_them.starting("plan", "room")
    with all_of_them.running():
        all_of_them.event("run", "ended", {"x": 1})
        all_of_them.notice("text")
    told = [("planned", "plan"), ("starting", "plan", "room"), ("in",)]
    told += [("run", "ended", {"x": 1}), ("notice", "text")]
    assert said == [(who, *words) for words in told for who in (1, 2)] + [(2, "out"), (1, "out")]


# ------------------------------------------------------------------------------ the end
def test_the_frame_has_a_row_for_each_that_was_started():
    (measurement,) = measurements_of([run_spec()], ("propagation",))
    result = SweepResult(
        "s",
        1,
        ended={"a": "failed", "b": "finished"},
        errors={"a": "its error"},
        unsound={"a": "its file", "b": "a part is gone"},
        resumed={"b": 3},
        kept={"a": 7},
    )
    assert is_measurement(measurement.work_id)
    result.status_of(measurement.work_id)[measurement.work_id] = "refused"
    result.status_of("c")["c"] = "diverged"
    assert list(result.measured) == [measurement.work_id]
    assert result.frame.rows() == [
        ("a", "failed", "its error", None, 7),
        ("b", "finished", "a part is gone", 3, None),
        ("c", "diverged", None, None, None),
        (measurement.work_id, "refused", None, None, None),
    ]
    assert SweepResult("s", 0).frame.height == 0


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({}, 0),
        ({"ended": {"a": "finished", "b": "diverged", "c": "stopped"}}, 0),
        ({"ended": {"a": "finished", "b": "failed"}}, 1),
        ({"measured": {"a": "failed"}}, 1),
        ({"ended": {"a": "failed"}, "mistakes": {"a"}}, 2),
        ({"ended": {"a": "failed", "b": "failed"}, "mistakes": {"a"}}, 1),
        ({"ended": {"a": "failed"}, "mistakes": {"a"}, "unsound": {"b": "gone"}}, 1),
        ({"ended": {"a": "finished"}, "unsound": {"a": "gone"}}, 1),
        ({"stopped": "its time"}, 1),
        ({"interrupted": 130, "stopped": "its time"}, 130),
        ({"interrupted": 143, "ended": {"a": "failed"}, "mistakes": {"a"}}, 143),
    ],
)
def test_the_exit_code_says_whose_the_next_move_is(said, code):
    assert SweepResult("s", 0, **said).exit_code == code
