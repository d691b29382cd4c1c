"""Stand-ins whose depth is a loop: how many blocks they have, and what tells two apart."""

import pytest
from pydantic import ValidationError

from sweeps.spec import TIED_STANDINS, StandinModel


def standin(family, **shape):
    return StandinModel(standin=family, pretraining="clm", digest="0" * 64, **shape)


@pytest.mark.parametrize("family", TIED_STANDINS)
def test_one_block_is_called_as_often_as_there_are_layers(family):
    assert standin(family, layers=8).blocks_of_its_own == 1
    assert standin("gpt2", layers=8).blocks_of_its_own == 8


@pytest.mark.parametrize(("iterations", "blocks"), [(8, 1), (4, 2), (2, 4)])
def test_blocks_of_a_turn_are_calls_over_turns(iterations, blocks):
    assert standin("looped_gpt2", layers=8, iterations=iterations).blocks_of_its_own == blocks


def test_turns_decide_a_result_where_they_are_named():
    plain, named = standin("looped_gpt2", layers=8), standin("looped_gpt2", layers=8, iterations=4)
    assert "iterations" not in plain.identity()
    assert named.identity() == {**plain.identity(), "iterations": 4}


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ({"family": "gpt2", "iterations": 2}, "iterations is of stand-ins of looped_gpt2"),
        ({"family": "albert", "iterations": 2}, "iterations is of stand-ins of looped_gpt2"),
        ({"family": "looped_gpt2", "layers": 8, "iterations": 3}, "layers 8 are no 3 iterations"),
        ({"family": "looped_gpt2", "layers": 8, "iterations": 1}, "greater than or equal to 2"),
    ],
)
def test_turns_that_would_do_nothing_or_do_not_fit_are_refused(shape, said):
    with pytest.raises(ValidationError, match=said):
        standin(**shape)
