"""What an adapter leaves of the memory and the operations of a run."""

import pytest
from small_run import make_run

from orchestrator.sizing.cost import estimate
from orchestrator.sizing.memory import estimate_memory, shape_of
from orchestrator.sizing.traces import asked, key_of
from sweeps.spec import Execution, Lora


def test_by_the_formula_the_base_is_held_once_and_the_adapter_alone_is_trained():
    whole, run = make_run(), make_run(adapter=Lora(rank=4))
    shape = shape_of(run)
    plain = Execution(engine="plain").settled()
    full, thin = (estimate_memory(one, shape, plain).terms for one in (whole, run))
    adapter = thin["moments"] / 8
    assert adapter == 4 * 18 * shape.width * shape.layers
    assert thin["weights"] == 4 * (shape.parameters + adapter)
    assert thin["moments"] < 0.3 * full["moments"]
    split = Execution(engine="deepspeed", processes=2, zero_stage=2).settled()
    full, thin = (estimate_memory(one, shape, split) for one in (whole, run))
    assert thin.allocated < full.allocated


def test_a_run_with_an_adapter_costs_less_by_its_plan():
    full, thin = (estimate(make_run(adapter=one)) for one in (Lora(rank=1), make_run().adapter))
    assert full.flops < thin.flops
    assert full.state_bytes == pytest.approx(thin.state_bytes / 4)


def test_a_trace_is_of_one_adapter():
    keys = {
        key_of(asked(make_run(adapter=adapter), 2, "plain", False))
        for adapter in (make_run().adapter, Lora(), Lora(rank=2), Lora(targets=("c_attn",)))
    }
    assert len(keys) == 4
