"""What adapters, and optimizers of the user's own, make of the memory and operations of a run."""

import pytest
from own_sweep import EXAMPLES, the_run
from small_run import make_run

from orchestrator.sizing.cost import estimate
from orchestrator.sizing.memory import estimate_memory, memory_of, shape_of
from orchestrator.sizing.traces import asked, key_of
from sweeps.spec import Execution, Lora

CODE = EXAMPLES / "adabelief.py"


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


def test_memory_is_that_of_what_it_keeps(tmp_path):
    """By the formula: of two numbers a parameter as of AdamW's, and of none."""
    runs = {
        rule: the_run(tmp_path, CODE, more=f"optimizer: {rule}")
        for rule in ("adabelief", "adamw", "{sgd: {momentum: 0}}")
    }
    how = Execution(engine="deepspeed", processes=2, zero_stage=2)
    own, adamw, sgd = (memory_of(run, how) for run in runs.values())
    assert own == adamw
    assert own.allocated > sgd.allocated


def test_a_trace_is_of_one_rule_with_its_options_and_its_code(tmp_path):
    edited = tmp_path / "adabelief.py"
    edited.write_text(CODE.read_text() + "\n# edited\n")
    ways = [
        (CODE, "adabelief"),
        (CODE, "{adabelief: {beta1: 0.8}}"),
        (edited, "adabelief"),
        (CODE, "{sgd: {momentum: 0.5}}"),
    ]
    runs = [the_run(tmp_path, code, more=f"optimizer: {rule}") for code, rule in ways]
    assert len({key_of(asked(run, 4, "plain", False)) for run in runs}) == 4
    # Nothing of an optimizer is traced where ranks cut it.
    assert len({key_of(asked(run, 4, "deepspeed", False)) for run in runs}) == 1
