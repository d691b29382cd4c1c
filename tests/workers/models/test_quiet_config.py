"""Nothing in a model is random in training mode: a result would depend on how it is computed."""

import pytest
import torch
from transformers import BertConfig, MixtralConfig, PhimoeConfig

from workers.models.pretrained import quiet_config


def test_dropout_and_the_noise_of_routers_are_off_wherever_they_are_said():
    config = MixtralConfig(router_jitter_noise=0.3, attention_dropout=0.2)
    config.text_config = BertConfig(hidden_dropout_prob=0.1, classifier_dropout=0.4)
    quiet_config(config)
    inner = config.text_config
    assert (config.router_jitter_noise, config.attention_dropout) == (0.0, 0.0)
    assert (inner.hidden_dropout_prob, inner.classifier_dropout) == (0.0, 0.0)


def test_what_decides_in_eval_mode_too_is_left():
    config = PhimoeConfig(attention_dropout=0.2)
    before = config.router_jitter_noise
    quiet_config(config)
    assert (config.router_jitter_noise, config.attention_dropout) == (before, 0.0)
    assert before > 0


def test_dropout_in_a_mapping_is_off():
    config = BertConfig()
    config.attn_config = {"attn_pdrop": 0.1, "scale": 0.5}
    quiet_config(config)
    assert config.attn_config == {"attn_pdrop": 0.0, "scale": 0.5}


@pytest.mark.parametrize("training", [True, False])
def test_a_mixture_of_experts_gives_the_same_in_training_mode(training):
    from transformers import MixtralForCausalLM

    config = MixtralConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=2,
        router_jitter_noise=0.5,
    )
    quiet_config(config)
    torch.manual_seed(0)
    model = MixtralForCausalLM(config).train(training)
    ids = torch.arange(8)[None]
    with torch.no_grad():
        assert torch.equal(model(ids).logits, model(ids).logits)
