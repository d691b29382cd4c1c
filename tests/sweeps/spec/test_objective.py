"""What an objective reads of a row: by its kind's forms, or by what a role is elsewhere."""

import pytest

from sweeps.spec import BuiltinData, Objective, PluginCode
from sweeps.spec.objective import OBJECTIVE_DEFAULTS

DATA = BuiltinData(builtin="python-docs", digest="d")
CODE = PluginCode(plugin="/code/mine.py", plugin_digest="7" * 64)


def own(*roles):
    return Objective(kind="mine", data=DATA, code=CODE, read_roles=roles)


@pytest.mark.parametrize(
    ("role", "cell"),
    [
        ("text", "text"),  # of examples, not the stream of packed text
        ("text_pair", "text"),
        ("label", "label"),
        ("labels", "labels"),  # of several labels, which comes before the tags of words
        ("tokens", "words"),
        ("prompt", "prompt"),
        ("completion", "dialogue"),
        ("messages", "messages"),
        ("chosen", "dialogue"),
        ("rejected", "dialogue"),
        ("anchor", "text"),
        ("of my own", "text"),
    ],
)
def test_a_cell_of_a_users_objective_is_what_its_role_is_elsewhere(role, cell):
    assert own(role).cells == {role: cell}


def test_cells_of_a_kind_are_those_of_the_form_that_its_roles_are():
    pair = Objective(kind="regression", data=DATA, read_roles=("text", "text_pair", "label"))
    assert pair.cells == {"text": "text", "text_pair": "text", "label": "number"}
    assert Objective(kind="clm", data=DATA).cells == {"text": "stream"}
    talk = Objective(kind="sft", data=DATA, read_roles=("messages",))
    assert talk.cells == {"messages": "messages"}
    assert Objective(kind="sft", data=DATA).cells == {"prompt": "prompt", "completion": "dialogue"}


@pytest.mark.parametrize("roles", [("text",), ("text", "label", "anchor"), ("label",)])
def test_roles_that_are_no_form_of_a_kind_are_refused(roles):
    with pytest.raises(ValueError, match="classification reads no rows of"):
        Objective(kind="classification", data=DATA, read_roles=roles)


@pytest.mark.parametrize(
    ("roles", "sequences"),
    [
        (("text",), 1),
        (("anchor", "positive"), 2),
        (("anchor", "positive", "negative"), 3),
        (("prompt", "chosen", "rejected"), 2),
    ],
)
def test_an_example_is_as_many_sequences_as_stand_apart_in_it(roles, sequences):
    assert own(*roles).sequences == sequences


def test_packed_is_what_comes_as_a_stream_or_shares_sequences():
    assert all(Objective(kind=kind, data=DATA).packed for kind in ("clm", "mlm"))
    assert [
        Objective(kind="sft", data=DATA, packing=packing).packed
        for packing in (None, "none", "within", "across")
    ] == [False, False, True, True]
    assert not own("text").packed


@pytest.mark.parametrize(
    ("kind", "code", "said"),
    [("mine", None, "has no code"), ("clm", CODE, "is depthsweep's own")],
)
def test_a_kind_has_code_where_it_is_the_users_and_only_there(kind, code, said):
    with pytest.raises(ValueError, match=said):
        Objective(kind=kind, data=DATA, code=code)


def test_an_option_at_the_default_of_its_kind_is_left_out_and_another_is_not():
    plain = Objective(kind="mlm", data=DATA).identity()
    assert Objective(kind="mlm", data=DATA, mask_probability=0.15).identity() == plain
    assert Objective(kind="mlm", data=DATA, mask_probability=0.3).identity() != plain
    spans = Objective(kind="span_corruption", data=DATA)
    assert spans.model_copy(update={"mean_span": 3.0}).identity() == spans.identity()
    assert spans.model_copy(update={"mean_span": 4.0}).identity() != spans.identity()


def test_what_is_left_out_of_an_identity_is_what_it_has_always_stood_for():
    """A number that moved here would have stored runs count as runs of another loss."""
    assert OBJECTIVE_DEFAULTS == {
        "clm": {"bos": None},
        "mlm": {"mask_probability": 0.15},
        "span_corruption": {"mask_probability": 0.15, "mean_span": 3.0},
        "classification": {"labels": 2, "pooling": "mean"},
        "contrastive": {"temperature": 0.05, "pooling": "mean", "mask_duplicates": False},
        "regression": {"pooling": "mean"},
        "multi_label": {"labels": 2, "pooling": "mean"},
        "token_classification": {"labels": 2},
        "sft": {"packing": "none"},
        "preference": {"beta": 0.1},
    }
