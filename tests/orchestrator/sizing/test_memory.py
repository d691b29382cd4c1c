"""The formula of memory against what the catalogue's models took on a GPU.

``measured.json`` is the figures of ``python -m tests.gpu --only memory``: a batch of 32 × 128 in
bf16, one forward and backward pass a step.
"""

import json
from pathlib import Path

import pytest

from orchestrator.sizing.memory import estimate_memory
from sweeps.sources.catalog import CATALOG
from sweeps.spec import Execution
from tests.gpu import catalogue

MEASURED = json.loads(Path(__file__).with_name("measured.json").read_text())


def planned(entry):
    how = {"engine": "plain"}
    if entry["zero_stage"] is not None:
        how = {"engine": "deepspeed", "zero_stage": entry["zero_stage"], "processes": 1}
    run = catalogue.paper_run(entry["model"])
    assert (run.batch_size, run.sequence_length, run.precision) == (32, 128, "bf16")
    execution = Execution(micro_batch_size=run.batch_size, offload="none", **how).settled()
    return estimate_memory(run, catalogue.shape_of(entry["model"]), execution)


@pytest.mark.parametrize("entry", MEASURED["models"], ids=lambda entry: entry["model"])
def test_a_plan_is_no_less_than_what_was_used_and_not_far_above(entry):
    assert entry["used"] <= planned(entry).total <= 1.35 * entry["used"]


@pytest.mark.parametrize("entry", MEASURED["models"], ids=lambda entry: entry["model"])
def test_the_terms_of_a_forward_pass_are_what_was_allocated(entry):
    terms = planned(entry).terms
    found = sum(terms.values()) - terms["gradients"] - terms["fixed"]
    # Under ZeRO the plan has a block of the probe and DeepSpeed's own buffers besides.
    share = 0.05 if entry["zero_stage"] is None else 0.1
    assert found == pytest.approx(entry["allocated"], rel=share)


def test_every_model_of_the_catalogue_but_the_largest_was_measured():
    names = {entry["model"] for entry in MEASURED["models"]}
    assert set(CATALOG) - names == {"pythia-6.9b"}
