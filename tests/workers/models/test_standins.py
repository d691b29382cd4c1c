import numpy as np
import pytest
from small_run import make_run

from workers.loading import load_model
from workers.models.standins import let_tokens_through, unigram_entropy


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


def test_a_post_norm_stand_in_hears_its_tokens_above_their_positions(make_language_model):
    model, _ = make_language_model("opt_post_norm")
    let_tokens_through(model)
    decoder = model.model.decoder
    tokens = decoder.project_in(decoder.embed_tokens.weight)
    assert tokens.norm(dim=1).mean() > 2 * decoder.embed_positions.weight.norm(dim=1).mean()
