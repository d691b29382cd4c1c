"""What a model is known by: that which decides its weights, and what cannot be is refused."""

import pytest
from pydantic import ValidationError

from sweeps.spec import RECURRENT_STANDINS, STANDIN_POSITIONS, FolderModel, HubModel, StandinModel


def standin(family="gpt2", **shape):
    return StandinModel(**{"standin": family, "pretraining": "clm", "digest": "0" * 64, **shape})


def test_positions_of_stand_ins_are_what_their_ids_have_always_stood_for():
    """They decide first weights and are in no id: another number would be other runs' results."""
    assert STANDIN_POSITIONS == 256
    assert set(RECURRENT_STANDINS) == {"mamba", "rwkv"}


def test_what_a_stand_in_leaves_open_is_what_its_weights_have_always_been_made_with():
    """Where it moves, a sweep file that says no more is of other models and other runs."""
    said = {"standin": "gpt2", "pretraining": "clm", "digest": "0" * 64}
    assert standin().model_dump() == {
        **said,
        **{"layers": 6, "iterations": None, "width": 64, "vocabulary": 512},
        **{"pretrain_steps": 300, "pretrain_mask": 0.5},
        **{"language": "docs", "stage": "pretrained", "freeze": ()},
    }


@pytest.mark.parametrize("stage", ["instructed", "aligned"])
def test_only_what_speaks_the_made_up_language_is_taught_further(stage):
    with pytest.raises(ValidationError, match=f"stage {stage} is of stand-ins with `language"):
        standin(stage=stage)
    assert standin(stage=stage, language="made_up").stage == stage
    assert standin().stage == "pretrained"
    assert standin(language="made_up").stage == "pretrained"


def test_the_made_up_language_is_of_decoders():
    with pytest.raises(ValidationError, match="language made_up is of decoders"):
        standin("bert", pretraining="mlm", language="made_up")
    assert standin("bert", pretraining="mlm").language == "docs"


@pytest.mark.parametrize(
    ("shape", "blocks"),
    [
        ({}, 6),
        ({"family": "albert"}, 1),
        ({"family": "looped_gpt2"}, 1),
        ({"family": "looped_gpt2", "iterations": 3}, 2),
    ],
)
def test_calls_of_a_block_are_not_blocks(shape, blocks):
    assert standin(**shape).blocks_of_its_own == blocks


@pytest.mark.parametrize(
    "source",
    [
        HubModel(hub="a/b", revision="0" * 40, pretraining="clm"),
        FolderModel(folder="/m", digest="0" * 64, pretraining="clm"),
    ],
    ids=["hub", "folder"],
)
def test_code_and_pickles_decide_an_id_only_where_they_are_allowed(source):
    assert not {"pickled_weights", "trust_remote_code", "freeze"} & set(source.identity())
    trusting = source.model_copy(update={"freeze": ("embedding",)})
    assert trusting.identity() != source.identity()
