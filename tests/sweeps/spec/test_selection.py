"""What a selection may be, how a sweep file says it, and what it is to a run's id."""

import pytest
from pydantic import ValidationError
from small_run import DOCS, make_run

from sweeps.declaration.entries.sweep_spec import Settings
from sweeps.declaration.settings import condition_settings
from sweeps.spec import (
    SELECTIONS,
    All,
    High,
    LengthMatched,
    Low,
    Moderate,
    Objective,
    Random,
    RunSpec,
)

SFT = Objective(kind="sft", data=DOCS, packing="none")


def said(value):
    return Settings.model_validate({"selection": value}).selection


def test_a_name_or_a_name_with_its_options_says_a_selection():
    assert said("all") == All()
    assert said("high") == High() == said({"high": {"share": 0.2, "loss_within": 1.0}})
    assert said({"low": {"loss_within": None}}) == Low(loss_within=None)
    assert [said(name).kind for name in SELECTIONS] == list(SELECTIONS)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("hihg", "unknown selection 'hihg'; did you mean 'high'"),
        ({"high": {"share": 1.0}}, "less than 1"),
        ({"high": {"share": 0}}, "greater than 0"),
        ({"high": {"loss_within": 0.0}}, "greater than 0"),
        ({"random": {"loss_within": 1.0}}, "loss_within"),
        ({"all": {"share": 0.5}}, "share"),
        ({"length_matched": {"share": 0.6}}, "up to share 0.5"),
        ({"high": {}, "low": {}}, "one"),
    ],
)
def test_what_is_no_selection_is_refused_in_words(value, message):
    with pytest.raises(ValidationError, match=message):
        said(value)


def test_no_selection_leaves_a_run_its_id_and_every_setting_of_another_changes_it():
    plain = make_run()
    assert plain.run_id == make_run(selection=All()).run_id
    assert "selection" not in plain.identity()
    others = [Random(), Low(), Moderate(), High(), High(share=0.5), High(loss_within=None)]
    ids = {make_run(selection=one).run_id for one in others}
    assert len(ids | {plain.run_id}) == 7
    assert make_run(selection=High()).identity()["selection"] == {"kind": "high"}
    run = make_run(selection=High(share=0.5, loss_within=None))
    assert RunSpec.model_validate_json(run.model_dump_json()) == run


def test_settings_of_a_selection_are_columns():
    names = {one.name for one in condition_settings()}
    assert {"selection", "share", "loss_within"} <= names
    values = {
        one.name: one.value(make_run(selection=High(share=0.5)))
        for one in condition_settings()
        if one.path[0] == "selection"
    }
    assert values["selection"] == "high"
    assert values["share"] == 0.5
    assert values["loss_within"] == 1.0


def test_candidates_are_a_whole_number_of_which_the_batch_is_the_share():
    assert make_run().candidates == 4
    assert make_run(selection=High()).candidates == 20
    assert make_run(selection=High(share=0.1), batch_size=3).candidates == 30
    with pytest.raises(ValidationError, match=r"4 are no share 0\.3 of a whole number"):
        make_run(selection=High(share=0.3))


def test_what_has_no_loss_of_its_own_or_no_length_of_its_own_is_refused_when_planned():
    contrastive = Objective(kind="contrastive", data=DOCS, temperature=0.05, pooling="mean")
    with pytest.raises(ValidationError, match="selection random needs a loss of each example"):
        make_run(objective=contrastive, selection=Random())
    with pytest.raises(ValidationError, match="length_matched is random for objective clm"):
        make_run(selection=LengthMatched())
    packed = Objective(kind="sft", data=DOCS, packing="within")
    with pytest.raises(ValidationError, match="length_matched is random for objective sft"):
        make_run(objective=packed, selection=LengthMatched())
    assert make_run(objective=SFT, selection=LengthMatched()).candidates == 20
