"""What runs share of machines: a GPU and the CPUs beside it, and the machine's memory."""

import pytest
from small_run import make_run

from orchestrator.sizing.choice import Host
from orchestrator.sizing.placement import (
    Node,
    hosts,
    place,
    pools,
    rank_processes,
    with_half_the_micro_batch,
)
from sweeps.errors import UserError
from sweeps.spec import Execution, RunSpec


def run_of(processes=None):
    return make_run(batch_size=8, execution=Execution(processes=processes))


def test_more_processes_than_slots_are_refused():
    assert rank_processes(run_of(), 1) == 0
    assert rank_processes(run_of(processes=2), 2) == 2
    with pytest.raises(UserError, match="needs 4 processes and 2 can run"):
        rank_processes(run_of(processes=4), 2)


HEAD = Node("head", cpus=4, gpus=0)
LARGE, SMALL = Node("a", 32, 8, gpu_bytes=80.0), Node("b", 64, 4, gpu_bytes=24.0)


def test_runs_go_to_nodes_with_gpus_where_there_are_any_and_share_their_cpus():
    placement = place([HEAD, LARGE, SMALL])
    assert (placement.gpus, placement.cpus, placement.threads) == (True, 4, 4)
    assert [placement.size_of(node) for node in (HEAD, LARGE, SMALL)] == [0, 8, 4]
    assert pools([HEAD, LARGE, SMALL], placement) == {80.0: 8, 24.0: 4}
    assert placement.holds(0.25, 10.5) == {"GPU": 0.25, "CPU": 1.0, "memory": 10.0}


def test_without_gpus_each_cpu_carries_out_a_run_of_one_thread():
    placement = place([HEAD, Node("c", 3, 0)])
    assert (placement.gpus, placement.threads, placement.size_of(HEAD)) == (False, 1, 4)
    assert pools([HEAD, Node("c", 3, 0)], placement) == {None: 7}
    assert placement.holds(0.5, 1e9) == {"CPU": 1.0}


@pytest.mark.parametrize(
    ("node", "size", "free"),
    [
        (Node("n", cpus=8, gpus=4, free_cpus=8.0, free_gpus=1.5), 2, 1.5),
        (Node("n", cpus=16, gpus=4, free_cpus=2.0, free_gpus=4.0), 4, 0.5),
        (Node("n", cpus=3, gpus=4, free_cpus=3.0, free_gpus=4.0), 0, 0.75),
    ],
)
def test_a_node_has_room_for_as_many_as_its_gpus_and_its_cpus_allow(node, size, free):
    placement = place([Node("least", cpus=4, gpus=1)])
    assert (placement.size_of(node), placement.free_on(node)) == (size, free)


@pytest.mark.parametrize("nodes", [[], [Node("head", 0, 0)]])
def test_neither_a_gpu_nor_a_cpu_is_refused(nodes):
    with pytest.raises(UserError, match="neither a GPU nor a CPU"):
        place(nodes)


def test_the_memory_of_a_machine_is_that_of_the_node_with_most_for_each_gpu():
    placement = place([Node("least", cpus=4, gpus=1)])
    small, large = Node("a", 8, 2, memory=64.0, gpu_bytes=80.0), Node("b", 32, 8, memory=512.0)
    assert hosts([small, large], placement) == {80.0: Host(64.0, 2), None: Host(512.0, 8)}
    assert hosts([small, Node("silent", 8, 2)], placement) == {}
    assert hosts([small], place([Node("cpus", 4, 0)])) == {}


def test_no_run_gets_more_than_eight_cpus_beside_a_gpu():
    assert place([Node("a", cpus=64, gpus=4)]).cpus == 8
    assert place([Node("a", cpus=28, gpus=4)]).cpus == 7
    assert place([Node("a", cpus=2, gpus=4)]).cpus == 1


@pytest.mark.parametrize(
    ("batch", "execution", "sizes"),
    [
        (8, {}, [4, 2, 1]),
        (12, {}, [6, 3, 1]),
        (9, {}, [3, 1]),
        (8, {"processes": 2}, [2, 1]),
        (8, {"micro_batch_size": 2}, [1]),
        (7, {}, [1]),
    ],
)
def test_a_micro_batch_is_halved_to_what_divides_the_batch_until_it_is_one(batch, execution, sizes):
    run = make_run(batch_size=batch, execution=Execution(**execution))
    found, text = [], run.model_dump_json()
    while (text := with_half_the_micro_batch(text)) is not None:
        smaller = RunSpec.model_validate_json(text)
        assert smaller.run_id == run.run_id
        found.append(smaller.micro_batch_size)
    assert found == sizes
