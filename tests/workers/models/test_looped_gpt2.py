"""A decoder whose depth is a loop: what a forward pass is, and that it goes through files."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from workers.models.looped_gpt2 import LoopedGPT2Config
from workers.models.pretrained import examine, measure_facts, quiet_config

IDS = torch.arange(24).view(2, 12) + 5


def looped(calls=6, iterations=3):
    torch.manual_seed(0)
    config = LoopedGPT2Config(
        vocab_size=100,
        n_embd=32,
        n_layer=calls,
        n_head=4,
        n_positions=64,
        iterations=iterations,
        bos_token_id=0,
        eos_token_id=0,
    )
    quiet_config(config)
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize(
    ("iterations", "calls"), [(6, [0] * 6), (3, [0, 1] * 3), (2, [0, 1, 2] * 2), (1, range(6))]
)
def test_call_number_t_l_is_of_block_l_in_turn_t(iterations, calls):
    model = looped(iterations=iterations)
    (stack,) = examine(model).stacks
    assert stack.calls == tuple(calls)
    blocks = 6 // iterations
    assert [(p.iteration * blocks + p.block, p.layer) for p in stack.positions()[1:]] == [
        (k, k) for k in range(1, 7)
    ]
    facts = measure_facts(model)
    assert (facts.family, facts.kind, facts.block) == ("looped_gpt2", "decoder", "sequential")
    assert (facts.layers, facts.depth) == (blocks, 6)


def test_a_turn_is_given_what_the_one_before_it_gave():
    """Against the loop written out."""
    model = looped()
    body = model.transformer
    state = body.wte(IDS) + body.wpe(torch.arange(12))
    for _ in range(3):
        for index in range(2):
            state = body.h[index](state)
    wanted = body.ln_f(state) @ body.wte.weight.T
    torch.testing.assert_close(model(IDS).logits, wanted, rtol=1e-5, atol=1e-6)


def test_one_turn_is_the_model_that_it_is_made_of():
    """GPT-2 itself, with the very weights."""
    model = looped(iterations=1)
    settings = {k: v for k, v in model.config.to_dict().items() if k != "iterations"}
    gpt2 = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(**{**settings, "model_type": "gpt2"})
    ).eval()
    gpt2.load_state_dict(model.state_dict())
    assert torch.equal(model(IDS).logits, gpt2(IDS).logits)


def test_no_token_sees_what_comes_after_it():
    model = looped()
    other = IDS.clone()
    other[:, 8:] = 99
    first, second = (model(ids).logits[:, :8] for ids in (IDS, other))
    torch.testing.assert_close(first, second)


def test_answers_are_the_same_with_and_without_a_cache():
    """Each call keeps keys and values of its own, though its block is another's too."""
    model = looped()
    said = [
        model.generate(IDS, max_new_tokens=16, do_sample=False, use_cache=cache, eos_token_id=None)
        for cache in (True, False)
    ]
    assert torch.equal(*said)
    assert said[0].shape == (2, 28)


def test_it_is_saved_with_each_block_once_and_loaded_as_it_was(tmp_path):
    model = looped()
    model.save_pretrained(tmp_path)
    loaded, said = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(said.values())
    assert torch.equal(loaded.eval()(IDS).logits, model(IDS).logits)
    blocks = {name.split(".")[2] for name in loaded.state_dict() if ".h." in name}
    assert blocks == {"0", "1"}


def test_calls_that_are_no_whole_turns_are_refused():
    with pytest.raises(ValueError, match="6 calls of blocks are no 4 turns"):
        looped(iterations=4)
