"""Placement is a pure choice: simplest first, within the GPU's memory, refused with the numbers."""

import pytest
from small_run import make_run

from orchestrator.sizing.memory import GIB, estimate_memory, shape_of
from orchestrator.sizing.placement import (
    Node,
    choose,
    execution_text,
    place,
    placed,
    pools,
    rank_processes,
)
from sweeps.errors import UserError
from sweeps.sources.catalog import CATALOG
from sweeps.spec import Execution, HubModel, ModelSpec


def large(name="pythia-6.9b", **execution):
    known = CATALOG[name]
    source = HubModel(hub=known.hub, revision=known.revision, pretraining="clm")
    return make_run(
        model=ModelSpec(name=name, source=source),
        batch_size=32,
        sequence_length=128,
        precision="bf16",
        execution=Execution(**execution),
    )


@pytest.mark.parametrize(
    ("gib", "gpus", "stage", "offload", "processes"),
    [
        (139, 1, 2, "none", 1),
        (78, 1, 2, "optimizer", 1),
        (78, 8, 2, "none", 2),
        (40, 8, 2, "none", 8),
        (8, 1, 3, "parameters", 1),
    ],
)
def test_the_largest_model_is_cut_no_more_than_it_must_be(gib, gpus, stage, offload, processes):
    chosen = choose(large(), gib * GIB, gpus)
    how = chosen.execution
    assert (how.zero_stage, how.offload, how.processes) == (stage, offload, processes)
    assert chosen.memory.total <= gib * GIB


def test_small_models_train_in_one_plain_process():
    chosen = choose(large("pythia-160m"), 78 * GIB, 8)
    assert execution_text(chosen.execution) == "plain, micro-batch 32"


def test_what_a_run_says_is_kept():
    chosen = choose(large(zero_stage=3, processes=4, micro_batch_size=2), 78 * GIB, 8)
    assert (chosen.execution.zero_stage, chosen.execution.processes) == (3, 4)
    assert chosen.execution.micro_batch_size == 2


def test_nothing_fits_is_refused_with_the_numbers():
    with pytest.raises(UserError, match=r"at least \d+\.\d GiB of a GPU's 1\.6.*GiB\)"):
        choose(large(), 1.6 * GIB, 1)


def test_settings_no_machine_like_this_can_meet_are_refused():
    with pytest.raises(UserError, match="no way to carry it out on 2 GPUs"):
        choose(large(processes=8), 78 * GIB, 2)


def test_the_state_of_16_to_18_bytes_a_parameter_is_divided_by_stages():
    run = large()
    shape = shape_of(run)

    def state(**how):
        settled = Execution(engine="deepspeed", micro_batch_size=1, **how)
        terms = estimate_memory(run, shape, settled).terms
        names = ("weights", "gradients", "masters", "moments")
        return sum(terms.get(name, 0) for name in names) / shape.parameters

    assert state(processes=1, zero_stage=2, offload="none") == pytest.approx(18)
    assert state(processes=8, zero_stage=2, offload="none") == pytest.approx(2 + 16 / 8)
    assert state(processes=8, zero_stage=3, offload="none") == pytest.approx(18 / 8)
    assert state(processes=1, zero_stage=2, offload="optimizer") == pytest.approx(2)


def test_a_placement_changes_no_run_id_and_nothing_where_there_is_no_gpu():
    run = large()
    assert placed(run, 78 * GIB, 8).run_id == run.run_id
    assert placed(run, 78 * GIB, 8).execution != run.execution
    assert placed(run, None, 0) is run


def test_more_processes_than_slots_are_refused():
    assert rank_processes(large(), 1) == 0
    assert rank_processes(large(processes=2), 2) == 2
    with pytest.raises(UserError, match="needs 4 processes and 2 can run"):
        rank_processes(large(processes=4), 2)


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
