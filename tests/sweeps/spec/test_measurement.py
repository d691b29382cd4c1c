"""What a measurement is known by: all that decides it, and nothing that does not."""

import pytest
from planted_store import run_spec
from pydantic import ValidationError

from sweeps.spec import (
    MEASUREMENTS,
    BuiltinData,
    EqualStep,
    Measurement,
    Objective,
    Optimizer,
    counted,
    is_measurement,
    measurements_of,
)
from sweeps.spec import measurement as module

RUN = run_spec("gpt2", "contrastive")
BOTH, DISTANCE = set(MEASUREMENTS), {"objective_distance"}


def changed(**fields):
    return RUN.model_copy(update=fields)


def probe(**fields):
    return changed(probe=RUN.probe.model_copy(update=fields))


def source(**fields):
    return RUN.model.model_copy(update={"source": RUN.model.source.model_copy(update=fields)})


@pytest.mark.parametrize(
    ("other", "kinds"),
    [
        (changed(seed=7), set()),
        (changed(control=EqualStep()), set()),
        (changed(steps=99), set()),
        (changed(optimizer=Optimizer(learning_rate=9e-3)), set()),
        (changed(precision="bf16"), set()),
        (changed(execution=RUN.execution.model_copy(update={"micro_batch_size": 1})), set()),
        (changed(model=RUN.model.model_copy(update={"name": "the same"})), set()),
        (changed(objective=RUN.objective.model_copy(update={"name": "mine"})), set()),
        (probe(every=3), set()),
        (changed(objective=RUN.objective.model_copy(update={"temperature": 0.2})), DISTANCE),
        (changed(batch_size=32), DISTANCE),
        (changed(sequence_length=8), DISTANCE),
        (changed(model=source(revision="1" * 40)), BOTH),
        (probe(rows=40), BOTH),
        (probe(seed=1), BOTH),
        (probe(data=BuiltinData(builtin="python-source", digest="other")), BOTH),
    ],
)
def test_ids_change_with_what_decides_and_with_nothing_else(other, kinds):
    moved = {
        kind
        for kind in MEASUREMENTS
        if Measurement(kind=kind, run=other).key != Measurement(kind=kind, run=RUN).key
    }
    assert moved == kinds


@pytest.mark.parametrize("kind", MEASUREMENTS)
def test_another_way_to_measure_has_another_id(kind, monkeypatch):
    before = Measurement(kind=kind, run=RUN)
    raised = {**module._VERSIONS, kind: module._VERSIONS[kind] + 1}
    assert before.work_id == Measurement(kind=kind, run=RUN).work_id
    monkeypatch.setattr(module, "_VERSIONS", raised)
    assert before.work_id == before.work_id != Measurement(kind=kind, run=RUN).work_id


@pytest.mark.parametrize("kind", MEASUREMENTS)
def test_it_goes_to_a_worker_as_text_and_is_told_from_a_run(kind):
    one = Measurement(kind=kind, run=RUN)
    again = Measurement.model_validate_json(one.model_dump_json())
    assert again.work_id == one.work_id
    assert is_measurement(one.work_id)
    assert not is_measurement(RUN.run_id)
    assert RUN.model.name in one.label


def test_a_kind_that_does_not_exist_is_refused():
    with pytest.raises(ValidationError):
        Measurement(kind="weather", run=RUN)


def test_runs_share_measurements_in_an_order_that_kinds_do_not_choose():
    mine = Objective(
        name="my-pairs",
        kind="contrastive",
        data=RUN.objective.data,
        temperature=0.5,
        pooling="mean",
    )
    runs = [RUN, changed(seed=3), changed(objective=mine), run_spec("opt", "clm")]
    found = measurements_of(runs, ["objective_distance", "propagation"])
    assert [one.kind for one in found] == ["propagation"] * 2 + ["objective_distance"] * 3
    assert found[3].label == "objective distance of gpt2 my-pairs"
    assert counted(found) == "2 propagations, 3 objective distances"
    assert counted(found[:1]) == "1 propagation"
    assert measurements_of(runs, ()) == []
