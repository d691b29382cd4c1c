"""The books of a sweep: what is asked for, and how they follow what Ray makes of it."""

from dataclasses import replace

import pytest

from orchestrator.policy.books import OTHERS_SECONDS, PAUSE_A_SECOND, Books, NodeRoom
from orchestrator.policy.next_start import Waiting
from orchestrator.policy.occupancy import UNITS, Demand


def alike(count, gpus=1, seconds=10.0):
    return [Waiting(f"{k}", Demand.of(gpus), seconds + k) for k in range(count)]


def books_on(runs, nodes, **limits):
    books = Books(runs, **limits)
    books.look([NodeRoom(name, size, size) for name, size in nodes.items()], 0.0)
    return books


def asks(books, now=0.0):
    found = []
    while (ask := books.next(now)) is not None:
        found.append((ask.run.run_id, ask.node))
    return found


# ------------------------------------------------------------------------------ where runs are
def test_a_run_stands_where_it_says_it_is_and_who_was_expected_there_makes_room():
    books = books_on(alike(3), {"a": 1, "b": 1})
    assert asks(books) == [("2", "a"), ("1", "b")]
    books.is_at("2", [("b", "0")], 1.0)
    assert books.nodes_of("2") == ("b",)
    # The other has no place, and is not asked for again: it takes the one that is left.
    assert books.next(1.0) is None
    assert books.nodes_of("1") == ("a",)
    books.is_at("1", [("a", "0")], 2.0)
    assert asks(books, 2.0) == []
    books.has_ended("2", 3.0)
    assert asks(books, 3.0) == [("0", "b")]


def test_a_run_asked_for_a_node_to_come_that_is_elsewhere_leaves_the_line():
    books = books_on(alike(3), {"a": 1})
    books.growth = 1
    assert asks(books) == [("2", "a"), ("1", None)]
    books.is_at("1", [("a", "0")], 1.0)
    assert books.nodes_of("1") == ("a",)
    assert {run.run_id for run in books.line} == {"0", "2"}
    books.has_ended("1", 5.0)
    assert asks(books, 5.0) == [("0", None)], "2 was asked for, and goes first where there is room"
    assert books.nodes_of("2") == ("a",)


def test_a_run_that_was_asked_for_stays_in_line_when_others_come_to_demand_something_else():
    books = books_on(alike(3), {"a": 1})
    books.growth = 1
    assert asks(books) == [("2", "a"), ("1", None)]
    books.demands(lambda _: Demand(gpus=2))
    assert {run.run_id: run.demand.gpus for run in books.line} == {"0": 2, "1": 1}
    books.has_ended("2", 5.0)
    assert asks(books, 5.0) == []
    assert books.nodes_of("1") == ("a",)


def test_what_a_node_to_come_may_bring_is_asked_for_whatever_the_shape():
    runs = [*alike(5), Waiting("wide", Demand(gpus=4), 90.0), *(
        Waiting(f"share {k}", Demand(UNITS // 4), 5.0 + k) for k in range(9)
    )]  # fmt: skip
    books = books_on(runs, {})
    books.growth = 8
    asked = [run_id for run_id, _ in asks(books)]
    assert asked[0] == "wide"
    demands = {run.run_id: run.demand.total for run in runs}
    assert 7.75 <= sum(demands[run_id] for run_id in asked) <= 8
    assert len(set(asked)) == len(asked)


def test_a_run_on_a_node_that_leaves_before_it_started_waits_in_line_without_being_asked_again():
    books = books_on(alike(2), {"a": 1, "b": 1})
    assert asks(books) == [("1", "a"), ("0", "b")]
    books.look([NodeRoom("b", 1, 1)], 1.0)
    assert asks(books, 1.0) == []
    books.has_ended("0", 2.0)
    assert asks(books, 2.0) == []
    assert books.nodes_of("1") == ("b",)


def test_a_run_asked_for_a_node_to_come_that_ends_meanwhile_is_not_asked_for_again():
    books = books_on(alike(3), {"a": 1})
    books.growth = 1
    assert asks(books) == [("2", "a"), ("1", None)]
    books.has_ended("1", 1.0)
    assert [run.run_id for run in books.line] == ["0"]
    assert asks(books, 1.0) == [("0", None)]


def test_a_run_asked_for_a_node_to_come_starts_once_however_its_nodes_change_meanwhile():
    books = books_on(alike(3), {"a": 1})
    books.growth = 1
    assert asks(books) == [("2", "a"), ("1", None)]
    books.exchange({run.run_id: replace(run, barred=frozenset({"a"})) for run in alike(3)})
    books.is_at("1", [("b", "0")], 1.0)
    assert [run.run_id for run in books.line] == ["0"]


def test_a_run_that_reports_after_it_has_ended_changes_nothing():
    books = books_on(alike(1), {"a": 1})
    asks(books)
    books.has_ended("0", 1.0)
    books.is_at("0", [("a", "0")], 2.0)
    books.has_reached("0", 1, 2, 3.0)
    assert books.cluster.placed == {}


def test_when_a_run_ends_is_reckoned_from_its_steps():
    books = books_on([Waiting("a", Demand(), 10.0)], {"n": 1})
    asks(books)
    books.is_at("a", [("n", "0")], 100.0)
    books.has_reached("a", 25, 100, 150.0)
    assert books.cluster.nodes["n"][0].free_at(UNITS) == 300.0
    books.has_ended("a", 300.0, measures=True)
    assert books.pace == 20.0


@pytest.mark.parametrize(("said", "start"), [({}, 0.0), ({"start_seconds": 7.0}, 7.0)])
def test_a_run_is_expected_to_take_its_start_and_its_seconds_at_the_pace(said, start):
    books = books_on(alike(2), {"n": 1}, **said)
    assert asks(books, 100.0) == [("1", "n")]
    assert books.cluster.nodes["n"][0].free_at(UNITS) == 100.0 + start + 11.0
    books.is_at("1", [("n", "0")], 110.0)
    assert books.cluster.nodes["n"][0].free_at(UNITS) == 110.0 + 11.0
    books.has_ended("1", 132.0, measures=True)
    assert asks(books, 200.0) == [("0", "n")]
    assert books.cluster.nodes["n"][0].free_at(UNITS) == 200.0 + start + 2.0 * 10.0


# ------------------------------------------------------------------------------ others
def test_what_others_hold_is_believed_once_it_lasts():
    books = books_on(alike(8), {"n": 4})
    assert len(asks(books)) == 4
    for run_id in "7654":
        books.has_ended(run_id, 10.0)
    # Ray is late: it says that all is taken, for less than that is believed.
    books.look([NodeRoom("n", 4, 0)], 10.0)
    assert len(books.cluster.nodes["n"]) == 4
    books.look([NodeRoom("n", 4, 1)], 10.0 + OTHERS_SECONDS + 0.1)
    assert len(books.cluster.nodes["n"]) == 1
    assert len(asks(books, 20.0)) == 2, "one more is asked for: others hold the rest"
    assert books.waits_for() == "2 waits for a GPU: others hold 3 of 4"


def test_a_node_that_others_hold_when_it_joins_is_not_counted_free_before_they_leave():
    books = Books(alike(4))
    books.look([NodeRoom("n", 4, 1.5)], 0.0)
    assert len(asks(books)) == 2
    books.look([NodeRoom("n", 4, 3)], 1.0)
    assert len(books.cluster.nodes["n"]) == 4


def test_why_the_first_in_line_waits_is_said():
    books = Books(alike(4))
    assert books.waits_for() == "no node is there yet"
    books.look([NodeRoom("n", 1, 1)], 0.0)
    books.growth = 2
    assert books.waits_for() is None, "there is room"
    assert asks(books) == [("3", "n"), ("2", None), ("1", None)]
    assert books.waits_for() == "2 runs wait for nodes to come"
    books.has_ended("1", 1.0)
    assert books.waits_for() == "1 run waits for nodes to come"
    books.has_ended("3", 2.0)
    assert books.waits_for() is None
    books.aside = {"n": "it fails"}
    assert books.waits_for() == "every node has been set aside"


def test_a_gang_that_is_larger_than_all_nodes_is_said_to_wait():
    books = books_on(alike(1, gpus=4), {"a": 2, "b": 1})
    assert books.waits_for() == "0 waits for 4 GPUs: the nodes there are have 3"
    books.growth = 1
    assert books.waits_for() is None


def test_what_others_wait_for_leaves_each_its_share():
    books = books_on(alike(9), {"n": 8})
    books.share = 4
    assert len(asks(books)) == 4
    books.share = None
    assert len(asks(books)) == 4


# ------------------------------------------------------------------------------ limits
def test_gpus_that_runs_hold_are_counted_first_when_larger_nodes_join():
    books = books_on(alike(9), {"small": 2}, most_gpus=4)
    assert len(asks(books)) == 2
    books.look([NodeRoom("small", 2, 0), NodeRoom("large", 8, 8)], 5.0)
    assert {name: len(gpus) for name, gpus in books.cluster.nodes.items()} == {
        "small": 2,
        "large": 2,
    }
    assert [node for _, node in asks(books, 5.0)] == ["large", "large"]


def test_no_more_gpus_are_used_than_the_limit_over_all_nodes():
    books = books_on(alike(9), {"a": 2, "b": 2, "c": 1}, most_gpus=2)
    assert sum(map(len, books.cluster.nodes.values())) == 2
    assert len(asks(books)) == 2


@pytest.mark.parametrize(("most", "started"), [(1, 1), (3, 3), (None, 4)])
def test_so_many_run_side_by_side(most, started):
    assert len(asks(books_on(alike(9), {"n": 4}, most=most))) == started


def test_nodes_that_have_not_shown_that_they_work_get_few_runs():
    books = books_on(alike(20, 0.25), {"a": 2, "b": 2})
    books.room_on = {"a": 3, "b": None}.get
    nodes = [node for _, node in asks(books)]
    assert (nodes.count("a"), nodes.count("b")) == (3, 8)
    alone = books_on(alike(20, 0.25), {"a": 2})
    alone.room_on = lambda _: 3
    assert len(asks(alone)) == 8, "there is no other to try"


# ------------------------------------------------------------------------------ where not
@pytest.mark.parametrize(
    ("nodes", "off", "barred"),
    [
        ({"a": 2, "b": 2}, {"a"}, {"a"}),
        ({"a": 2, "b": 2}, {"a", "b"}, set()),
        ({"a": 2, "b": 1}, {"a"}, set()),
        ({"a": 1, "b": 1, "c": 1}, {"a"}, {"a"}),
        ({"a": 1, "b": 1}, {"a"}, set()),
    ],
)
def test_a_run_keeps_off_nodes_only_where_the_others_have_room_for_it(nodes, off, barred):
    books = books_on(alike(1, gpus=2), nodes)
    asks(books)
    assert books.goes_back("0", frozenset(off)).barred == barred


@pytest.mark.parametrize(("most_gpus", "barred", "place"), [(1, set(), "a"), (None, {"a"}, "b")])
def test_a_node_that_the_limit_leaves_unused_is_no_other_place(most_gpus, barred, place):
    books = books_on(alike(1), {"a": 1, "b": 1}, most_gpus=most_gpus)
    assert asks(books) == [("0", "a")]
    assert books.goes_back("0", frozenset({"a"})).barred == barred
    assert asks(books, 1.0) == [("0", place)]


def test_a_run_comes_back_to_a_node_once_the_others_have_left():
    books = books_on(alike(1), {"a": 1, "b": 1})
    asks(books)
    assert books.goes_back("0", frozenset({"a"})).barred == {"a"}
    books.look([NodeRoom("a", 1, 1)], 1.0)
    assert asks(books, 1.0) == [("0", "a")]


def test_nodes_too_small_for_a_run_are_never_among_those_it_goes_to():
    run = Waiting("0", Demand(), 10.0, barred=frozenset({"small"}))
    books = books_on([run], {"small": 4, "large": 1})
    assert asks(books) == [("0", "large")]
    assert books.goes_back("0", frozenset({"large"})).barred == {"small"}
    assert asks(books) == [("0", "large")]


def test_a_gang_that_is_off_the_one_node_that_holds_it_goes_over_several():
    run = Waiting("0", Demand(gpus=4), 10.0, barred=frozenset({"whole"}))
    books = books_on([run], {"whole": 4, "b": 2, "c": 2})
    asks(books)
    assert books.nodes_of("0") == ("b", "c")


def test_runs_that_wait_take_new_demands_and_those_that_were_asked_for_keep_theirs():
    books = books_on(alike(3), {"n": 1})
    books.growth = 1
    assert asks(books) == [("2", "n"), ("1", None)]
    books.exchange({run.run_id: run for run in alike(3, gpus=4)})
    assert {run.run_id: run.demand.gpus for run in books.line} == {"1": 1, "0": 4}


# ------------------------------------------------------------------------------ weighing
class Ticks:
    """A clock that counts how often it is read; each reading is a second later."""

    def __init__(self):
        self.read = 0

    def __call__(self):
        self.read += 1
        return float(self.read)


def mixed():
    return [Waiting(f"{k}", Demand.of(1 + k % 2), 10.0 + k) for k in range(8)]


def test_weights_are_looked_for_after_a_change_and_not_again_without_one():
    clock = Ticks()
    books = books_on(mixed(), {"n": 4}, clock=clock)
    books.weigh(1.0)
    assert clock.read == 2, "at the begin and at the end of a search"
    books.weigh(1e6)
    assert clock.read == 2
    asks(books, 1e6)
    books.has_ended("7", 1e6)
    books.weigh(1e6)
    assert clock.read == 4


def test_weights_are_looked_for_when_nodes_have_changed():
    clock = Ticks()
    books = Books(mixed(), clock=clock)
    n, m = NodeRoom("n", 4, 4), NodeRoom("m", 4, 4)
    seen = [[NodeRoom("n", 4, 2)], [n], [n], [n, m], [n, m], [n]]
    searches = []
    for k, nodes in enumerate(seen):
        books.look(nodes, 1e6 * k)
        before = clock.read
        books.weigh(1e6 * k)
        searches.append(clock.read > before)
    assert searches == [True, True, False, True, False, True]


def test_weights_are_of_the_demands_that_runs_have_now():
    fresh, exchanged = books_on(mixed(), {"n": 4}), books_on(alike(8), {"n": 4})
    exchanged.exchange({run.run_id: run for run in mixed()})
    for books in (fresh, exchanged):
        books.weigh(1.0)
    assert set(fresh.line.weights) == {Demand.of(1), Demand.of(2)}
    assert exchanged.line.weights == fresh.line.weights


def test_the_search_for_weights_pauses_in_proportion_to_what_it_took():
    clock = Ticks()
    books = books_on(mixed(), {"n": 4}, clock=clock)
    asks(books)
    books.weigh(100.0)
    for run_id in ("7", "6"):
        books.has_ended(run_id, 100.0)
    books.weigh(100.0 + PAUSE_A_SECOND - 0.1)
    assert clock.read == 2
    books.weigh(100.0 + PAUSE_A_SECOND)
    assert clock.read == 4


# ------------------------------------------------------------------------------ pace
def test_the_pace_counts_runs_that_were_whole_and_had_started():
    books = books_on(alike(3), {"n": 3})
    asks(books)
    for run_id in "12":
        books.is_at(run_id, [("n", run_id)], 0.0)
    books.has_ended("1", 99.0)
    assert books.pace == 1.0, "it was not all of the run"
    books.has_ended("0", 99.0, measures=True)
    assert books.pace == 1.0, "it had not started"
    books.has_ended("2", 24.0, measures=True)
    assert books.pace == 24.0 / 12.0


# ------------------------------------------------------------------------------ nodes that return
def test_of_a_node_that_left_and_came_back_nothing_is_remembered():
    books = Books(alike(6))
    books.look([NodeRoom("n", 4, 1)], 0.0)
    assert len(books.cluster.nodes["n"]) == 1, "others hold three"
    books.look([], 1.0)
    books.growth = 4
    assert [node for _, node in asks(books, 1.0)] == [None] * 4
    # What is taken as it comes back may be what Ray was asked for.
    books.look([NodeRoom("n", 4, 1)], 2.0)
    assert len(books.cluster.nodes["n"]) == 4
