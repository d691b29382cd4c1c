import numpy as np
import pytest
from small_run import make_run

from workers.models import load_model
from workers.standins import unigram_entropy


@pytest.mark.parametrize("kinds", [1, 2, 512])
def test_the_entropy_of_tokens_that_are_all_alike_frequent_is_the_log_of_their_number(kinds):
    tokens = np.arange(8 * kinds, dtype=np.int32).reshape(8, kinds) % kinds
    assert unigram_entropy(tokens) == pytest.approx(np.log(kinds), abs=1e-12)


def test_the_facts_of_a_stand_in_say_how_far_its_pretraining_came(tmp_path):
    first = load_model(make_run().model, tmp_path, needs_head=True).facts
    assert 0 < first.unigram_entropy < np.log(400)
    # Three steps are no pretraining, and this is how one sees it.
    assert first.pretraining_loss > first.unigram_entropy
    again = load_model(make_run().model, tmp_path, needs_head=True).facts
    assert again == first
