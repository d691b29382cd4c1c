import json
import math
import re
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError, create_model

from sweeps.declaration.expand import read_sweep
from sweeps.spec import (
    BuiltinData,
    EqualStep,
    FileData,
    FolderModel,
    Frozen,
    HubData,
    HubModel,
    LayerClip,
    Objective,
    Optimizer,
    Probe,
    RunSpec,
    Standard,
    StandinModel,
    learning_rate,
)

PAPER = read_sweep("sweeps/library/paper.yaml")
RUN = PAPER.runs[0]
DATA = FileData(file="/rows.jsonl", digest="f" * 64, columns={"text": "sentence"})
EXAMPLES = [
    RUN,
    HubModel(hub="owner/name", revision="a" * 40, pretraining="clm"),
    FolderModel(folder="/model", digest="e" * 64, pretraining="clm"),
    StandinModel(standin="opt", pretraining="clm", digest="e" * 64, width=64),
    HubData(hub="owner/name", revision="a" * 40, split="test"),
    DATA,
    BuiltinData(builtin="python-docs", digest="f" * 64),
    Objective(kind="contrastive", data=DATA, temperature=0.1, pooling="mean"),
    Standard(),
    LayerClip(max_norm=0.5),
    EqualStep(scope="all"),
    Optimizer(learning_rate=1e-4, betas=(0.9, 0.95)),
    Probe(data=DATA, rows=100),
]


def changed(run: RunSpec, **fields) -> RunSpec:
    data = json.loads(run.model_dump_json())
    for key, value in fields.items():
        *path, last = key.split("__")
        place = data
        for part in path:
            place = place[part]
        place[last] = value
    return RunSpec.model_validate_json(json.dumps(data))


# A change of these is a change of identity: every store's finished runs would run again.
GOLDEN = {
    ("bert-base-uncased", "mlm", "standard", 0): "d6902941329b",
    ("gpt2", "contrastive", "equal_step", 2): "c2e9803c25b1",
    ("opt-1.3b", "classification", "standard", 1): "25f18ebd7c58",
    ("pythia-6.9b", "clm", "equal_step", 0): "008a26c68e6b",
}


@pytest.mark.parametrize(("point", "run_id"), GOLDEN.items(), ids=str)
def test_run_ids_of_the_study_are_pinned(point, run_id):
    found = [
        run.run_id
        for run in PAPER.runs
        if (run.model.name, run.objective.kind, run.control.kind, run.seed) == point
    ]
    assert found == [run_id]


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 7},
        {"steps": 999},
        {"batch_size": 64},
        {"sequence_length": 64},
        {"precision": "fp32"},
        {"optimizer__learning_rate": 3e-5},
        {"optimizer__max_grad_norm": 1.0},
        {"control": {"kind": "equal_step"}},
        {"probe__rows": 512},
        {"probe__seed": 1},
        {"probe__rows_per_width": 3.0},
        {"objective__mask_probability": 0.3},
        {"objective__data__split": "test"},
        {"objective__data__columns": {"text": "sentence"}},
        {"model__source__revision": "0" * 40},
        {"model__source__trust_remote_code": True},
    ],
    ids=str,
)
def test_what_decides_the_result_changes_the_run_id(change):
    assert changed(RUN, **change).run_id != RUN.run_id


@pytest.mark.parametrize(
    "change",
    [
        {"model__name": "another-name"},
        {"execution__micro_batch_size": 8},
        {"execution__part_steps": 10},
        {"model__source__pickled_weights": True},
    ],
    ids=str,
)
def test_what_only_carries_the_run_out_keeps_the_run_id(change):
    assert changed(RUN, **change).run_id == RUN.run_id


def test_the_identity_holds_what_was_chosen_and_nothing_that_is_as_it_always_was():
    run = changed(RUN, optimizer={"learning_rate": 2e-05, "schedule": "constant"}, precision="fp32")
    assert run.identity()["optimizer"] == {"learning_rate": 2e-05, "schedule": "constant"}
    assert "precision" not in run.identity()
    assert "execution" not in run.identity()
    assert run.identity()["control"] == {"kind": "standard"}


PARTS = [RunSpec, HubModel, FolderModel, StandinModel, HubData, FileData, BuiltinData, Objective]
PARTS += [Standard, LayerClip, EqualStep, Optimizer, Probe]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
def test_a_setting_that_is_added_later_renames_no_run_that_leaves_it_at_its_default(part):
    later = create_model(f"Later{part.__name__}", __base__=part, added=(int, 3))
    for old in EXAMPLES:
        if type(old) is part:
            fields = {name: getattr(old, name) for name in part.model_fields}
            assert Frozen.identity(later(**fields)) == Frozen.identity(old)
            more = Frozen.identity(later(**fields, added=4))
            assert more == {**Frozen.identity(old), "added": 4}
            break
    else:
        pytest.fail("no example")


def test_the_part_that_a_later_setting_is_added_to_may_lie_deep_inside_a_run():
    later = create_model("LaterOptimizer", __base__=Optimizer, amsgrad=(bool, False))
    fields = {name: getattr(RUN.optimizer, name) for name in Optimizer.model_fields}
    same = RUN.model_copy(update={"optimizer": later(**fields)})
    assert same.run_id == RUN.run_id
    other = RUN.model_copy(update={"optimizer": later(**fields, amsgrad=True)})
    assert other.run_id != RUN.run_id


def test_a_default_that_changes_is_written_out_and_the_first_one_is_not():
    class Later(Optimizer):
        first_defaults: ClassVar[dict[str, Any]] = {"eps": 1e-6}
        eps: float = 1e-8

    assert Later(learning_rate=1.0, eps=1e-6).identity() == Optimizer(learning_rate=1.0).identity()
    assert Later(learning_rate=1.0).identity() == {"learning_rate": 1.0, "eps": 1e-8}


def test_what_an_objective_takes_without_being_told_is_left_out_as_if_it_was_not_there():
    data = BuiltinData(builtin="python-docs", digest="d")
    told = Objective(kind="mlm", data=data, mask_probability=0.15)
    assert told.identity() == Objective(kind="mlm", data=data).identity()
    assert "mask_probability" not in told.identity()
    other = Objective(kind="classification", data=data, labels=3, pooling="mean")
    assert other.identity()["labels"] == 3
    assert "pooling" not in other.identity()


def test_a_column_that_is_called_like_its_role_is_no_choice():
    plain = FileData(file="/a", digest="d")
    assert FileData(file="/b", digest="d", columns={"text": "text"}).identity() == plain.identity()
    renamed = FileData(file="/a", digest="d", columns={"text": "label", "label": "text"})
    assert renamed.identity() != plain.identity()


def test_two_kinds_of_one_union_are_never_one_identity():
    kinds = [json.dumps(part.identity(), sort_keys=True) for part in EXAMPLES]
    assert len(set(kinds)) == len(kinds)


def test_a_copy_has_a_run_id_of_its_own():
    assert RUN.run_id
    copy = RUN.model_copy(update={"batch_size": 64})
    assert copy.run_id == changed(RUN, batch_size=64).run_id != RUN.run_id


def test_a_folder_counts_by_its_content_and_not_by_its_path():
    source = {"folder": "/a", "digest": "d" * 64, "pretraining": "mlm"}
    here = changed(RUN, model__source=source)
    there = changed(RUN, model__source={**source, "folder": "/b"})
    other = changed(RUN, model__source={**source, "digest": "e" * 64})
    assert here.run_id == there.run_id != other.run_id


@given(st.integers(0, 2**31 - 1), st.integers(101, 10_000), st.floats(1e-6, 1e-1))
def test_a_run_survives_json_with_its_identity(seed, steps, rate):
    run = changed(RUN, seed=seed, steps=steps, optimizer__learning_rate=rate, probe__every=None)
    assert RunSpec.model_validate_json(run.model_dump_json()) == run
    assert RunSpec.model_validate_json(run.model_dump_json()).run_id == run.run_id


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objective__kind": "clm"}, "pretrained with mlm"),
        (
            {"control": {"kind": "layer_clip", "max_norm": 1.0}, "optimizer__max_grad_norm": 1.0},
            "one owner",
        ),
        ({"control": {"kind": "layer_clip", "max_norm": 0.0}}, "greater than 0"),
        ({"control": {"kind": "equal_step", "target": 0.0}}, "greater than 0"),
        ({"optimizer__warmup_steps": 1000}, "below steps"),
        ({"execution__micro_batch_size": 5}, "must divide"),
        ({"probe__every": 1001}, "beyond steps"),
        ({"probe__rows": 64, "probe__rows_per_width": 3.0}, "remove one"),
        ({"steps": "100"}, "valid integer"),
        ({"optimizer__betas": [0.9, 1.0]}, r"\[0, 1\)"),
    ],
    ids=str,
)
def test_a_contradiction_is_refused(change, message):
    with pytest.raises(ValidationError, match=message):
        changed(RUN, **change)


def test_a_spec_cannot_be_changed():
    with pytest.raises(ValidationError):
        RUN.seed = 3


@given(st.integers(1, 500), st.integers(1, 100))
def test_parts_cover_every_step_once(steps, size):
    run = changed(
        RUN,
        steps=steps,
        probe__every=None,
        execution__part_steps=size,
        optimizer__warmup_steps=0,
    )
    parts = sorted({run.part_of(step) for step in range(1, steps + 1)})
    covered = [step for first, last in parts for step in range(first + 1, last + 1)]
    assert covered == list(range(1, steps + 1))
    assert all(last == steps or last % size == 0 for _, last in parts)


def test_probes_come_every_so_often_and_at_the_end():
    assert changed(RUN, steps=250, probe__every=100).probe_steps == (100, 200, 250)
    assert changed(RUN, steps=250, probe__every=None).probe_steps == (250,)


def test_learning_rate_warms_up_then_decays_to_just_above_zero():
    optimizer = Optimizer(learning_rate=1.0, warmup_steps=4)
    rates = [learning_rate(optimizer, step, 10) for step in range(1, 11)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[4:] == pytest.approx([1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])
    constant = Optimizer(learning_rate=1.0, schedule="constant")
    assert {learning_rate(constant, step, 10) for step in range(1, 11)} == {1.0}


@given(st.integers(2, 400), st.data())
def test_every_step_moves_the_weights_and_none_exceeds_the_peak(steps, data):
    warmup = data.draw(st.integers(0, steps - 1))
    optimizer = Optimizer(learning_rate=3e-4, warmup_steps=warmup)
    rates = [learning_rate(optimizer, step, steps) for step in range(1, steps + 1)]
    assert all(0 < rate <= 3e-4 * (1 + 1e-12) for rate in rates)
    assert math.isclose(max(rates), 3e-4)


def test_a_control_names_its_setting():
    assert EqualStep().setting == "mean"
    assert EqualStep(target=0.001).setting == "0.001"
    assert EqualStep(scope="all").setting == "mean,all"


def test_a_probe_at_the_last_step_only_is_one_run_however_its_interval_says_so():
    silent = changed(RUN, probe__every=None)
    assert changed(RUN, probe__every=RUN.steps).run_id == silent.run_id != RUN.run_id
    assert changed(RUN, probe__rows_per_width=2.0).run_id == RUN.run_id


def test_settings_that_differ_in_their_last_digit_are_told_apart():
    near = [EqualStep(target=target).setting for target in (0.001, 0.0010000001)]
    assert near == ["0.001", "0.0010000001"]
    assert LayerClip(max_norm=1.0).setting == "1"


FOLDER = {"folder": "/m", "digest": "d", "pretraining": "clm"}


@pytest.mark.parametrize(
    "change",
    [
        {"blocks": "model.language_model.layers"},
        {"freeze": ("embedding",)},
        {"freeze": ("encoder blocks 1-2", "head")},
    ],
)
def test_what_is_frozen_and_which_blocks_are_meant_decide_a_run_where_they_are_said(change):
    assert set(FolderModel(**FOLDER).identity()) == {"digest", "pretraining"}
    assert FolderModel(**FOLDER, **change).identity() != FolderModel(**FOLDER).identity()


def test_what_is_frozen_is_a_set():
    one = FolderModel(**FOLDER, freeze=("head", "blocks 3", "head"))
    assert one == FolderModel(**FOLDER, freeze=("blocks 3", "head"))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("blocks 3-1", "counted from 1, the lower number first"),
        ("blocks 0", "counted from 1"),
        ("block 3", "is none of embedding, head, `blocks 3`"),
        ("blocks  3", "one space between"),
        ("", "freezes nothing"),
    ],
)
def test_what_reads_like_blocks_and_is_none_freezes_nothing(entry, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        FolderModel(**FOLDER, freeze=(entry,))


@pytest.mark.parametrize("entry", ["*.bias", "model.layers.0.*", "norm", "decoder blocks 2-12"])
def test_names_and_ranges_can_be_frozen(entry):
    assert FolderModel(**FOLDER, freeze=(entry,)).freeze == (entry,)


def test_spans_are_an_objective_of_models_that_were_pretrained_on_them():
    data = BuiltinData(builtin="python-docs", digest="d")
    plain = Objective(kind="span_corruption", data=data, mask_probability=0.15, mean_span=3.0)
    assert set(plain.identity()) == {"kind", "data"}
    longer = plain.model_copy(update={"mean_span": 5.0})
    assert longer.identity()["mean_span"] == 5.0
