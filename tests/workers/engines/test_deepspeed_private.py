"""What ``deepspeed_zero`` uses of DeepSpeed without being promised it, attribute by attribute.

A release that moves one fails here, by name, and not in a run. The supported range in
pyproject.toml is what these tests have passed with.
"""

import json
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("deepspeed")

from engine_cells import Cell, advance, in_ranks, prepare

from workers.ranks.process_group import Ranks
from workers.ranks.rank_process import end_process

WRAPPERS = {
    (0, "fp32"): ("LayerOptimizer", ()),
    (0, "bf16"): ("FP16_UnfusedOptimizer", ("fp16_groups", "fp32_groups")),
    (1, "bf16"): (
        "DeepSpeedZeroOptimizer",
        (
            "single_partition_of_fp32_groups",
            "parallel_partitioned_bit16_groups",
            "round_robin_bit16_groups",
            "update_lp_params",
        ),
    ),
    (3, "bf16"): (
        "DeepSpeedZeroOptimizer_Stage3",
        (
            "fp16_groups",
            "fp32_partitioned_groups_flat",
            "sub_group_to_group_id",
            "persistent_parameters",
            "_reassign_or_swap_out_partitioned_parameters",
        ),
    ),
}
WRAPPERS |= {
    (1, "fp32"): WRAPPERS[1, "bf16"],
    (2, "fp32"): WRAPPERS[1, "bf16"],
    (2, "bf16"): WRAPPERS[1, "bf16"],
    (3, "fp32"): WRAPPERS[3, "bf16"],
}
# One of each wrapper and of each way to it is in the usual suite.
USUAL = ((0, "fp32"), (0, "bf16"), (2, "fp32"), (3, "bf16"))
EACH = pytest.mark.parametrize(
    ("stage", "precision"),
    [pytest.param(*one, marks=() if one in USUAL else pytest.mark.slow) for one in WRAPPERS],
)


def examine(path, wrappers):
    """Write what engines look like; run as the one rank of a process of its own."""
    torch.set_num_threads(1)
    import torch.nn.functional as functional

    linear = functional.linear
    found = {}
    for stage, precision in wrappers:
        cell = Cell("equal_step_mean", stage, precision=precision)
        objective, engine, _ = prepare(cell, "deepspeed", Ranks())
        private = engine.model.optimizer
        calls = []
        step = engine.optimizer.step
        engine.optimizer.step = lambda *a, calls=calls, step=step: (calls.append(1), step(*a))
        before = engine.optimizer.steps
        advance(cell, objective, engine, range(2))
        found[f"{stage} {precision}"] = {
            "wrapper": type(private).__name__,
            "lacking": [n for n in WRAPPERS[stage, precision][1] if not hasattr(private, n)],
            "steps_before": before,
            "steps_after": engine.optimizer.steps,
            "calls": len(calls) / 2,
            "groups": len(engine.groups),
            "settings": engine.optimizer.settings[0]["lr"],
        }
    found["linear is torch's"] = functional.linear is linear
    Path(path).write_text(json.dumps(found))


@pytest.fixture(scope="module")
def found(request, tmp_path_factory):
    """What was found, of those that this module's tests of today ask for."""
    items = [item for item in request.session.items if item.path == request.path]
    asked = {item.callspec.id for item in items if hasattr(item, "callspec")}
    wrappers = [one for one in WRAPPERS if "-".join(map(str, one)) in asked] or USUAL
    path = tmp_path_factory.mktemp("deepspeed") / "found.json"
    in_ranks(__file__, [str(path), json.dumps(wrappers)], 1)
    return json.loads(path.read_text())


@EACH
def test_the_wrapper_and_its_private_attributes_are_the_known_ones(found, stage, precision):
    wrapper, _ = WRAPPERS[stage, precision]
    assert found[f"{stage} {precision}"]["wrapper"] == wrapper
    assert found[f"{stage} {precision}"]["lacking"] == []


@EACH
def test_a_step_is_called_as_often_as_documented_and_none_is_taken_at_start(
    found, stage, precision
):
    seen = found[f"{stage} {precision}"]
    assert seen["calls"] == (1 if stage == 0 else seen["groups"])
    assert (seen["steps_before"], seen["steps_after"]) == (0, 2)
    assert seen["settings"] == pytest.approx(2e-3 * 0.9)


def test_deepspeed_does_not_replace_torchs_linear(found):
    assert found["linear is torch's"]


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    examine(sys.argv[1], [tuple(one) for one in json.loads(sys.argv[2])])
    end_process()
