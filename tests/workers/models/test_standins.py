import pytest
import torch

from workers.models.standins import let_tokens_through, order_positions


def test_a_post_norm_stand_in_hears_its_tokens_above_their_positions(make_language_model):
    model, _ = make_language_model("opt_post_norm")
    let_tokens_through(model)
    decoder = model.model.decoder
    tokens = decoder.project_in(decoder.embed_tokens.weight)
    assert tokens.norm(dim=1).mean() > 2 * decoder.embed_positions.weight.norm(dim=1).mean()


def test_an_encoder_knows_from_the_start_which_places_are_near(make_language_model):
    for family in ("bert", "roberta", "albert"):
        model, _ = make_language_model(family)
        positions = model.base_model.embeddings.position_embeddings.weight
        scale = positions.std().item()
        order_positions(model)
        assert positions.std().item() == pytest.approx(scale, rel=0.3)
        alike = torch.nn.functional.cosine_similarity(positions[40], positions, dim=1)
        near, far = alike[[39, 41]].min(), alike[[8, 72]].max()
        assert near > far
