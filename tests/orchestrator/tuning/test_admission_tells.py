"""What the admission of runs knows, tells and asks of each run that it starts. No Ray."""

from dataclasses import replace

import pytest

from orchestrator.policy.failures import LOSSES
from orchestrator.policy.next_start import Waiting
from orchestrator.policy.occupancy import Demand
from orchestrator.tuning.request import NEXT_TO_NOTHING, request_of
from tests.simulated.cluster import SimulatedRay
from tests.simulated.sweep import PlainRequests, SimulatedSweep


def alike(count, seconds=50.0, gpus=1, name=""):
    return [Waiting(f"{name}{k:03}", Demand.of(gpus), seconds + k) for k in range(count)]


def starts(sweep, run_id):
    return [moment for moment, who, _ in sweep.tries if who == run_id]


# ------------------------------------------------------------------------------ report by report
def started(sweep, result=None):
    """Have what an admission picks now start on node ``n``; return the requests."""
    admission, requests = sweep.admission, []
    admission.tick()
    while (config := admission.offer()) is not None:
        requests.append(request_of(config))
    while (found := admission.again()) is not None:
        requests.append(found[2])
    for k, request in enumerate(requests):
        admission.reports(request.run_id, {"seats": [("n", str(k))], **(result or {})})
    return requests


def test_each_try_of_a_run_has_a_placement_group_of_its_own_name():
    ray = SimulatedRay({"n": 1})
    sweep = SimulatedSweep(ray, alike(1))
    names = []
    for _ in range(3):
        (request,) = started(sweep)
        names.append(request.group)
        assert sweep.admission.reports("000", {"status": "preempted"}) == "pauses"
        ray.now += 1
    assert names == [f"{sweep.group}000-{k}" for k in (1, 2, 3)]


@pytest.mark.parametrize(
    ("first", "then", "measures"),
    [
        ({}, {"status": "finished"}, True),
        ({"resumed_from": 5}, {"status": "finished"}, False),
        ({}, {"status": "diverged"}, False),
    ],
)
def test_a_run_tells_how_long_its_like_take_where_it_was_made_in_one_piece(first, then, measures):
    sweep = SimulatedSweep(SimulatedRay({"n": 1}), alike(1))
    told = []
    sweep.admission.books.has_ended = lambda run_id, _, measures: told.append((run_id, measures))
    started(sweep, first)
    sweep.admission.reports("000", then)
    assert told == [("000", measures)]


def test_one_that_was_tried_twice_tells_nothing_of_it():
    ray = SimulatedRay({"n": 1})
    sweep = SimulatedSweep(ray, alike(1))
    told = []
    sweep.admission.books.has_ended = lambda run_id, _, measures: told.append((run_id, measures))
    started(sweep)
    sweep.admission.reports("000", {"status": "preempted"})
    ray.now += 1
    started(sweep)
    sweep.admission.reports("000", {"status": "finished"})
    assert told == [("000", False)]


def test_silence_is_more_than_what_a_first_import_may_take_since_the_last_report():
    ray = SimulatedRay({"n": 1})
    sweep = SimulatedSweep(ray, alike(1))
    started(sweep)
    ray.now += 600
    sweep.admission.reports("000", {"step": 1})
    ray.now += 900
    assert sweep.admission.silent(["000"]) == []
    ray.now += 1
    assert sweep.admission.silent(["000"]) == ["000"]


def test_a_process_that_never_answers_is_silent_from_when_it_has_its_place():
    ray = SimulatedRay({"n": 1})
    sweep = SimulatedSweep(ray, alike(1))
    sweep.admission.tick()
    assert sweep.admission.offer() is not None
    ray.now += 500
    assert sweep.admission.silent([]) == []
    ray.now += 500
    assert sweep.admission.silent(["000"]) == [], "it has just been placed"
    sweep.admission.tick()
    ray.now += 20
    sweep.admission.tick()
    assert sweep.notices == ["waiting: 000: no process has answered yet"]
    ray.now += 880
    assert sweep.admission.silent(["000"]) == []
    ray.now += 1
    assert sweep.admission.silent(["000"]) == ["000"]
    sweep.admission.reports("000", {"seats": [("n", "0")]})
    assert sweep.admission.silent(["000"]) == []


def test_a_run_that_ray_has_been_given_and_not_placed_is_named_after_a_minute():
    ray = SimulatedRay({"n": 2})
    sweep = SimulatedSweep(ray, alike(2))
    said = {}
    for second in range(100):
        ray.now = float(second)
        sweep.admission.tick()
        while sweep.admission.offer() is not None:
            pass
        said[second] = list(sweep.notices)
    # After 60 s it is waited for, and 10 s later that is said.
    assert said[71] == []
    assert said[72] == ["waiting: 001 and 1 others: Ray has no place yet"]
    assert said[99] == said[72]


def test_runs_are_weighed_before_the_first_is_taken_and_after_what_starts():
    ray = SimulatedRay({"n": 1})
    sweep = SimulatedSweep(ray, alike(3))
    books, calls = sweep.admission.books, []
    first = books.next
    books.weigh = lambda now: calls.append(f"weigh at {now:.0f}")
    books.next = lambda now: calls.append("next") or first(now)
    started(sweep)
    before = list(calls)
    assert before[0] == before[-1] == "weigh at 0"
    assert set(before[1:-1]) == {"next"}
    calls.clear()
    ray.now = 5.0
    sweep.admission.tick()
    assert calls == ["next", "weigh at 5"], "while something runs those before it were weighed"


def test_what_one_run_learns_of_memory_is_what_all_that_wait_hold():
    """Halves of a GPU until one meets the end of its memory; then each has one to itself."""

    class Learning(PlainRequests):
        alone = False

        def taught(self, request):
            holds = self.placement.holds(1.0)
            return replace(request, holds=holds) if self.alone else request

        def with_less_memory(self, request):
            self.alone = True
            return self.taught(request)

    ray = SimulatedRay({"n": 1})
    runs = alike(4, gpus=0.5)
    sweep = SimulatedSweep(ray, runs, requests=Learning(runs, 8))
    two = [request.run_id for request in started(sweep)]
    assert len(two) == 2
    assert sweep.admission.reports(two[0], {"status": "again", "what": "memory"}) == "pauses"
    sweep.admission.reports(two[1], {"status": "finished"})
    for _ in range(3):
        ray.now += 1
        (alone,) = started(sweep)
        assert alone.holds["GPU"] == 1.0
        sweep.admission.reports(alone.run_id, {"status": "finished"})
    assert len(sweep.ended) == 4


def test_a_run_that_is_lost_steps_back_and_in_the_end_says_why_it_is_given_up():
    ray = SimulatedRay({"n": 1})
    sweep = SimulatedSweep(ray, alike(1))
    said = []
    for _ in range(LOSSES):
        started(sweep)
        _, request = sweep.admission.loses("000", "killed by signal 9")
        said.append((request.steps_back, request.given_up))
        assert request.resources().bundles == [NEXT_TO_NOTHING]
        if request.steps_back:
            again = sweep.admission.loses("000", "its second process")
            assert again[1] == request, "a trial that steps back is lost once"
            assert sweep.admission.reports("000", {"status": "again"}) == "pauses"
        ray.now += 1
    text = f"lost {LOSSES} times without getting further; last: killed by signal 9"
    assert said == [(True, "")] * (LOSSES - 1) + [(False, text)]
    assert sweep.notices == ["000 waits for a process that can be started: its second process"]
    assert sweep.ended == {"000": "failed"}
    sweep.admission.reports("000", {"status": "failed", "error": text})
    assert sweep.ended == {"000": "failed"}


def test_what_is_waited_for_is_said_again_after_five_minutes():
    ray = SimulatedRay({"n": 1})
    ray.hold(1)
    sweep = SimulatedSweep(ray, alike(1))
    said = {}
    for second in range(640):
        ray.now = float(second)
        sweep.turn()
        said[second] = len(sweep.notices)
    first = next(second for second, count in said.items() if count)
    second = next(second for second, count in said.items() if count == 2)
    assert second - first == 301, "more than 300 s"
    assert said[639] == 3
    assert len(set(sweep.notices)) == 1


def test_reports_are_told_as_what_they_are():
    sweep = SimulatedSweep(SimulatedRay({"n": 1}), alike(1))
    started(sweep)
    report = {"step": 3, "steps": 9, "loss": 1.5}
    assert sweep.admission.reports("000", report) == "goes on"
    last = {"step": 4, "status": "cancelled"}
    assert sweep.admission.reports("000", last) == "pauses"
    assert [(kind, said) for _, _, kind, said in sweep.events] == [
        ("started", {"nodes": ("n",)}),
        ("progress", report),
        ("progress", last),
        ("preempted", {}),
    ]
