"""What ZeRO leaves to a rank, each term by hand from the table in ``orchestrator.sizing.zero``."""

import pytest

from orchestrator.sizing.zero import BUCKET, Passes, Sizes, later, offloaded, phases
from sweeps.spec import Execution

# 300 elements are trained, 50 are not; the largest layer has 100.
SIZES = Sizes(((100.0,), (60.0, 40.0), (60.0, 40.0)), frozen=50.0, kept=2)
ONE = Passes(training=1000.0, with_gradients=1100.0, probe=500.0, several=False)
SEVERAL = Passes(training=1000.0, with_gradients=1100.0, probe=500.0, several=True)


def on(stage, ranks=2, offload="none"):
    return Execution(engine="deepspeed", zero_stage=stage, processes=ranks, offload=offload)


def said(stage, *, bf16=False, passes=ONE, ranks=2, offload="none", sizes=SIZES):
    training, stepping, probing = phases(sizes, passes, bf16, on(stage, ranks, offload))
    state = {name: size for name, size in probing.items() if name != "probe"}
    assert {name: training[name] for name in state} == state
    assert {name: stepping[name] for name in state} == state
    return {
        **{name: size for name, size in state.items() if size},
        "passes": (training["activations"], training["gradients"], training["gathered"]),
        "step": stepping["gradients"],
        "probe": probing["probe"],
    }


def test_elements_are_those_of_all_layers():
    assert (SIZES.trained, SIZES.parameters, SIZES.largest) == (300.0, 350.0, 100.0)
    assert Sizes(((1.0,),)) == Sizes(((1.0,),), frozen=0.0, kept=2), "what AdamW keeps"


@pytest.mark.parametrize(
    ("group", "ranks", "most"),
    [
        ((10.0, 20.0, 30.0), 3, 50.0),  # the second rank has 20 to 40: the second and third
        ((20.0, 20.0, 20.0), 3, 20.0),  # each has one, and touches no other
        ((60.0, 40.0), 2, 100.0),
        ((60.0, 40.0), 1, 100.0),
        ((100.0,), 4, 100.0),
    ],
)
def test_a_rank_touches_each_parameter_of_which_it_has_a_part(group, ranks, most):
    assert Sizes((group,)).touched(ranks) == most
    assert Sizes((group, (7.0,))).touched(ranks) == most + 7


def test_the_rank_that_touches_most_over_all_layers_counts():
    # Of the first layer the first rank touches both, of the second the second one does.
    assert Sizes(((10.0, 30.0), (30.0, 10.0))).touched(2) == 70.0


# ------------------------------------------------------------------------------ float32
def test_at_stage_0_nothing_is_cut_and_a_step_reduces_gradients():
    assert said(0) == {
        "weights": 4 * 350,
        "moments": 4 * 2 * 300,
        "scratch": 4 * 100,
        "passes": (1200, 0, 0),  # as many as gradients, which come as activations go
        "step": 4 * 300 + 4 * 300,
        "probe": 500 + 4 * 100,
    }
    assert said(0, ranks=1)["step"] == 4 * 300
    assert said(0, passes=SEVERAL)["passes"] == (1000, 1200, 0)


def test_at_stage_1_the_optimizer_is_cut():
    assert said(1) == {
        "weights": 4 * 350,
        "masters": 4 * 150,
        "moments": 4 * 2 * 150,
        "scratch": 4 * 50,
        "messages": 2 * BUCKET * 4,
        "passes": (1200, 0, 0),
        "step": 4 * 300 + 4 * 300,  # the second rank touches every parameter
        "probe": 900,
    }
    assert "messages" not in said(1, ranks=1)


@pytest.mark.parametrize(("passes", "gradients"), [(ONE, 1200), (SEVERAL, 2400)])
def test_at_stage_2_gradients_are_whole_parameters_twice_where_they_add_up(passes, gradients):
    found = said(2, passes=passes)
    assert found["passes"] == (1000, gradients, 0)
    assert found["step"] == 1200 + 4 * 150
    assert found["weights"] == 4 * 350


def test_at_stage_3_weights_are_cut_and_gathered():
    found = said(3)
    assert found["weights"] == 4 * (150 + 50)
    assert found["passes"] == (1000, 4 * 150, 4 * (300 + 300))
    assert found["step"] == 4 * 150


# ------------------------------------------------------------------------------ bf16
@pytest.mark.parametrize(
    ("stage", "weights", "masters", "moments", "passes", "step"),
    [
        (0, 2 * 350, 4 * 300, 2400, (1100, 0, 0), 2 * 300 + 4 * 300),
        (1, 2 * 350, 4 * 150, 1200, (1100, 0, 0), 2 * (300 + 300)),
        (2, 2 * 350, 4 * 150, 1200, (1100, 0, 0), 4 * 150),
        (3, 2 * 200, 4 * 150, 1200, (1000, 600, 2 * 600), 4 * 150),
    ],
)
def test_in_bf16_masters_are_beside_weights_of_half_the_size(
    stage, weights, masters, moments, passes, step
):
    found = said(stage, bf16=True)
    assert (found["weights"], found["masters"], found["moments"]) == (weights, masters, moments)
    assert (found["passes"], found["step"]) == (passes, step)
    assert found.get("messages", 0) == (2 * BUCKET * 2 if stage else 0)


def test_in_bf16_gradients_of_stage_2_come_after_the_fullest_moment():
    assert later(SIZES, ONE, True, on(2)) == 4 * 150
    assert later(SIZES, ONE, True, on(2, ranks=3)) == 4 * 100
    for bf16, passes, stage in (
        (False, ONE, 2),
        (True, SEVERAL, 2),
        (True, ONE, 1),
        (True, ONE, 3),
    ):
        assert later(SIZES, passes, bf16, on(stage)) == 0


def test_what_an_optimizer_keeps_is_multiplied():
    assert said(0, sizes=Sizes(SIZES.groups, kept=1))["moments"] == 4 * 300
    assert said(1, sizes=Sizes(SIZES.groups, kept=3))["moments"] == 4 * 3 * 150


# ------------------------------------------------------------------------------ large models
def test_what_is_whole_at_once_is_limited():
    large = Sizes(((2e9,),))
    found = said(3, sizes=large)
    assert found["passes"][2] == 4 * (1e9 + 5e7)
    assert found["scratch"] == 4 * 2**26
    assert said(0, sizes=large)["step"] == 4 * 2e9 + 4 * 5e8


# ------------------------------------------------------------------------------ offloading
@pytest.mark.parametrize("stage", [2, 3])
def test_an_offloaded_optimizer_leaves_the_gpu(stage):
    found, kept = said(stage, offload="optimizer"), said(stage)
    assert not {"masters", "moments", "scratch"} & set(found)
    assert found["weights"] == kept["weights"]
    assert found["messages"] == kept["messages"]
    assert found["step"] == (0 if stage == 3 else kept["step"])
    assert found["passes"][1] == (0 if stage == 3 else kept["passes"][1])
    alone = said(stage, offload="optimizer", ranks=1)
    assert alone["messages"] == 2 * BUCKET * 4, "pinned, to the one rank's own memory"


def test_offloaded_parameters_leave_the_gpu_too():
    assert "weights" not in said(3, offload="parameters")
    assert said(3, offload="parameters")["passes"][2] == 4 * 600


@pytest.mark.parametrize(
    ("offload", "bf16", "host"),
    [
        # Three layers of 50 elements a rank: masters and gradients of 200 bytes are pinned as 256,
        # a copy in bf16 of 100 as 128; two moments of 4 bytes are not.
        ("none", False, 0),
        ("optimizer", False, 2 * 3 * 256 + 8 * 150),
        ("optimizer", True, 2 * 3 * 256 + 3 * 128 + 8 * 150),
        ("parameters", False, 2 * 3 * 256 + 8 * 150 + 4 * 350 / 2),
        ("parameters", True, 2 * 3 * 256 + 3 * 128 + 8 * 150 + 2 * 350 / 2),
    ],
)
def test_what_leaves_the_gpu_is_in_the_machines_memory(offload, bf16, host):
    assert offloaded(SIZES, bf16, on(3, offload=offload)) == host


def test_a_power_of_two_is_pinned_as_it_is():
    powers = Sizes(((128.0,),), kept=0)
    assert offloaded(powers, False, on(3, offload="optimizer")) == 2 * 256
    assert offloaded(Sizes(((129.0,),), kept=0), False, on(3, 1, "optimizer")) == 2 * 1024


def test_one_process_is_meant_where_none_is_said():
    alone = Execution(engine="deepspeed", zero_stage=2, offload="optimizer")
    one = on(2, ranks=1, offload="optimizer")
    assert offloaded(SIZES, True, alone) == offloaded(SIZES, True, one)
    assert phases(SIZES, ONE, True, alone) == phases(SIZES, ONE, True, one)
    alone, one = (each.model_copy(update={"offload": "none"}) for each in (alone, one))
    assert later(SIZES, ONE, True, alone) == later(SIZES, ONE, True, one) == 4 * 300
    assert phases(SIZES, ONE, False, alone) == phases(SIZES, ONE, False, one)
