"""What ``run`` tells each trial, by what there is: processes, shares of a GPU, threads."""

import pytest

from orchestrator.policy.occupancy import UNITS
from orchestrator.sizing.estimates import NOTHING_MEASURED
from orchestrator.sizing.memory import GIB
from orchestrator.sizing.placement import Placement
from orchestrator.sweep_run import _offers
from sweeps.declaration.expand import read_sweep
from sweeps.store.store import Store

PAPER = list(read_sweep("sweeps/library/paper.yaml").runs)
DEMO = list(read_sweep("sweeps/library/demo.yaml").runs)


@pytest.fixture
def store(tmp_path):
    return Store.at(str(tmp_path / "store"))


def test_every_run_on_a_gpu_gets_a_process_of_its_own(store):
    offers = _offers(PAPER, store, Placement(8, 4, 1, 4), 80 * GIB, NOTHING_MEASURED)
    assert all(offer.config["fresh"] for offer in offers)
    threads = {offer.run.demand.units / UNITS: offer.config["job"].threads for offer in offers}
    assert threads == {0.25: 1, 1.0: 4}


def test_on_cpus_plain_runs_share_warm_processes_and_zero_3_does_not(store):
    offers = _offers(DEMO, store, Placement(2, 1, 0, 1), None, NOTHING_MEASURED)
    assert {(o.config["fresh"], o.config["job"].threads) for o in offers} == {(False, 1)}
    execution = DEMO[0].execution.model_copy(update={"engine": "deepspeed", "zero_stage": 3})
    sharded = [DEMO[0].model_copy(update={"execution": execution})]
    (alone,) = _offers(sharded, store, Placement(2, 1, 0, 1), None, NOTHING_MEASURED)
    assert alone.config["fresh"]
