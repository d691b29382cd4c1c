"""Adapters and kept weights as a sweep file says them."""

import json

import jsonschema
import pytest
from small_run import make_run

from sweeps.declaration.entries.sweep_spec import json_schema
from sweeps.declaration.expand import read_sweep
from sweeps.declaration.settings import run_labels
from sweeps.errors import UserError
from sweeps.spec import EqualStep, Execution, Lora, NoAdapter, RunSpec

SWEEP = """
name: adapted
models: {tiny: {standin: opt, layers: 3}}
objectives: {clm: {data: {builtin: python-docs}}}
probe: {data: {builtin: python-docs}}
defaults: {steps: 9, batch_size: 4, sequence_length: 8, learning_rate: 1e-3}
blocks:
  - name: all
    set: {SET}
    grid: {model: [tiny], objective: [clm], control: [standard], seed: [0], adapter: GRID}
"""


def read(tmp_path, grid="[none]", settings="precision: fp32"):
    path = tmp_path / "adapted.yaml"
    path.write_text(SWEEP.replace("GRID", grid).replace("SET", settings), encoding="utf-8")
    return read_sweep(path)


def test_an_adapter_is_an_axis_of_a_grid_and_part_of_a_runs_id(tmp_path):
    grid = (
        "[none, lora, {lora: {rank: 4, alpha: 2, targets: [v_proj, q_proj], layers: [blocks 2-3]}}]"
    )
    runs = read(tmp_path, grid).runs
    assert [run.adapter for run in runs] == [
        NoAdapter(),
        Lora(),
        Lora(rank=4, alpha=2.0, targets=("q_proj", "v_proj"), layers=("blocks 2-3",)),
    ]
    assert len({run.run_id for run in runs}) == 3
    assert "adapter" not in runs[0].identity()
    assert runs[1].identity()["adapter"] == {"kind": "lora"}
    assert "rank 4" in run_labels(runs)[runs[2].run_id]
    again = RunSpec.model_validate_json(json.dumps(runs[2].model_dump(mode="json")))
    assert again == runs[2]
    assert again.run_id == runs[2].run_id
    assert [run.says_what_is_trained for run in runs] == [False, False, True]


def test_the_order_of_targets_makes_no_other_run():
    first, second = Lora(targets=("a", "b")), Lora(targets=("b", "a", "b"))
    assert first == second


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ("[lra]", "unknown adapter 'lra'; did you mean 'lora'?"),
        ("[{lora: {rnk: 3}}]", "rnk"),
        ("[{lora: {rank: 0}}]", "rank"),
        ("[{lora: {layers: [3]}}]", "layers"),
        ("[{lora: {layers: [blocks 0-2]}}]", "counted from 1"),
        ("[{lora: {layers: [blocks 3-2]}}]", "the lower number first"),
        ("[{lora: {layers: [embedding]}}]", "no range of blocks"),
        ("[{lora: 3}]", "are a mapping"),
        ("[{lora: []}]", "are a mapping"),
        ("[{lora: false}]", "are a mapping"),
        ('[{lora: ""}]', "are a mapping"),
    ],
)
def test_what_is_no_adapter_is_refused_with_its_line(tmp_path, grid, said):
    with pytest.raises(UserError, match=r"adapted\.yaml:\d+") as refused:
        read(tmp_path, grid)
    assert said in str(refused.value)
    assert len(str(refused.value).replace(str(tmp_path), "")) < 300


def test_freezing_and_adapters_have_one_owner(tmp_path):
    (run,) = read(tmp_path, "[lora]").runs
    source = {
        "folder": "m",
        "digest": "0" * 64,
        "pretraining": "clm",
        "freeze": ["head"],
    }
    content = run.model_dump(mode="json")
    content["model"]["source"] = source
    with pytest.raises(ValueError, match="both say what is trained"):
        RunSpec.model_validate_json(json.dumps(content))


def test_the_schema_for_editors_knows_adapters():
    schema = json_schema()
    adapter = {"$defs": schema["$defs"], **schema["$defs"]["Settings"]}
    for good in ("lora", "none", {"lora": {"rank": 2, "layers": ["blocks 1"]}}):
        jsonschema.validate({"adapter": good}, adapter)
    for bad in ("lra", {"lora": {"rnk": 2}}, {"none": {}, "lora": {}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"adapter": bad}, adapter)


def test_which_weights_are_kept_decides_no_result_and_old_records_are_read(tmp_path):
    (bare,) = read(tmp_path).runs
    (kept,) = read(tmp_path, settings="keep: final").runs
    assert (bare.execution.keep, kept.execution.keep) == ("none", "final")
    assert bare.run_id == kept.run_id
    for before, now in ((True, "final"), (False, "none")):
        assert Execution.model_validate({"keep_checkpoint": before}).keep == now
    with pytest.raises(UserError, match="keep_checkpoint"):
        read(tmp_path, settings="keep_checkpoint: true")
    with pytest.raises(UserError, match="add `evaluation`"):
        read(tmp_path, settings="keep: best")


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (("blocks 1",), ("blocks 1-1",)),
        (("blocks 1-2",), ("blocks 1", "blocks 2")),
        (("blocks 1-2",), ("blocks 02", "blocks 1")),
        (("blocks 2-7",), ("blocks 5-7", "blocks 2-5", "blocks 3")),
        (("blocks 9-10", "blocks 3"), ("blocks 3", "blocks 10", "blocks 9")),
        (
            ("encoder blocks 1-3", "decoder blocks 2"),
            ("decoder blocks 2-2", "encoder blocks 1-2", "encoder blocks 3"),
        ),
    ],
)
def test_the_same_blocks_in_other_words_are_the_same_adapter(said, meant):
    assert Lora(layers=said) == Lora(layers=meant)
    assert Lora(layers=meant).blocks == tuple(sorted(said))


def test_other_blocks_are_another_adapter():
    assert Lora(layers=("blocks 1-2",)) != Lora(layers=("blocks 1", "blocks 3"))
    assert Lora(layers=("encoder blocks 1",)) != Lora(layers=("decoder blocks 1",))


@pytest.mark.parametrize("target", ["mean", "median", "budget", "learning_rate", 1e-3])
@pytest.mark.parametrize("unit", ["block", "matrix"])
def test_equal_steps_of_matrices_that_begin_at_zero_are_refused_where_they_set_the_pace(
    target, unit
):
    made = {"adapter": Lora(rank=2), "control": EqualStep(target=target, unit=unit)}
    if unit == "block" or target in ("learning_rate", 1e-3):
        assert make_run(**made).adapter.kind == "lora"
        return
    with pytest.raises(ValueError, match="use target learning_rate or a number, or unit block"):
        make_run(**made)
    assert make_run(control=made["control"]).control.relative
