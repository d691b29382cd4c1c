"""Where runs are said to be is where they are, whatever was expected; nothing is counted twice."""

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.policy.occupancy import UNITS, Demand, Occupancy

SHARES = st.sampled_from([UNITS, UNITS // 2, UNITS // 4])


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(SHARES, st.integers(0, 2), st.integers(0, 5), st.booleans()), max_size=30)
)
def test_what_is_free_follows_from_who_is_where(happenings):
    """Runs are expected somewhere, say that they are elsewhere, and end; their GPUs have names."""
    cluster = Occupancy([("a", 2), ("b", 3)])
    room = {}  # what Ray has given: units of each GPU
    there = {}
    for number, (units, node, gpu, ends) in enumerate(happenings):
        run_id, name = str(number), ("a", "b", "late")[node]
        seat = (name, str(gpu))
        if room.get(seat, UNITS) >= units:
            room[seat] = room.get(seat, UNITS) - units
            cluster.correct(run_id, Demand(units), [seat], 9.0)
            there[run_id] = (seat, units)
        elif (free := next((g for g in cluster.nodes["a"] if g.free >= units), None)) is not None:
            cluster.occupy(run_id, Demand(units), [free], 9.0)
        if ends and there:
            gone, (seat, units) = there.popitem()
            room[seat] += units
            cluster.release(gone)
    for run_id, (seat, units) in there.items():
        (gpu,) = cluster.placed[run_id]
        assert (gpu.node, gpu.name) == seat
        assert gpu.tenants[run_id][0] == units
    for name, gpus in cluster.nodes.items():
        for gpu in gpus:
            assert gpu.free == UNITS - sum(units for units, _ in gpu.tenants.values()) >= 0
        assert cluster.free_on[name] == sum(gpu.free for gpu in gpus)
        assert cluster.free_whole[name] == sum(gpu.free == UNITS for gpu in gpus)
        names = [gpu.name for gpu in gpus if gpu.name]
        assert len(names) == len(set(names))


def test_a_share_of_a_gpu_is_counted_without_rounding():
    for gpus in (0.0001, 0.1, 0.125, 0.2, 0.25, 0.5, 1, 3):
        assert Demand.of(gpus).total == gpus


def test_runs_whose_place_is_known_stay_and_those_expected_make_room():
    cluster = Occupancy([("n", 1)])
    half = Demand(UNITS // 2)
    (gpu,) = cluster.nodes["n"]
    cluster.correct("sure", half, [("n", "0")], 9.0)
    cluster.occupy("expected", half, [gpu], 9.0)
    assert cluster.correct("told", half, [("n", "0")], 9.0) == ["expected"]
    assert set(gpu.tenants) == {"sure", "told"}
    assert "expected" not in cluster.placed


def test_cpus_have_no_names_and_each_run_gets_one_of_its_own():
    cluster = Occupancy([("n", 2)])
    for run_id in "ab":
        assert cluster.correct(run_id, Demand(), [("n", "")], 9.0) == []
    assert [list(gpu.tenants) for gpu in cluster.nodes["n"]] == [["a"], ["b"]]


def test_fewer_gpus_are_counted_as_runs_let_go_of_them():
    cluster = Occupancy([("n", 4)])
    cluster.occupy("a", Demand(gpus=3), cluster.nodes["n"][:3], 9.0)
    cluster.resize("n", 1)
    assert (len(cluster.nodes["n"]), cluster.free_on["n"]) == (3, 0)
    cluster.release("a")
    cluster.resize("n", 1)
    assert (len(cluster.nodes["n"]), cluster.free_whole["n"]) == (1, 1)
    cluster.resize("n", 4)
    assert (cluster.free_whole["n"], cluster.largest_node) == (4, 4)


def test_a_copy_knows_how_many_gpus_of_a_node_there_are_beside_those_that_runs_may_hold():
    cluster = Occupancy([("a", 2)])
    cluster.add_node("b", 1, size=4)
    copy = cluster.copy()
    assert (copy.largest_node, copy.largest_without(frozenset("b"))) == (4, 2)
    copy.add_node("c", 8)
    assert cluster.largest_node == 4
