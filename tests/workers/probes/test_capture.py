import math
from contextlib import contextmanager

import pytest
import torch

from sweeps.errors import UserError
from sweeps.sources.corpora import corpus_digest
from sweeps.spec import BuiltinData, Probe
from workers.models.pretrained import PretrainedModel, examine, measure_facts
from workers.probes import capture as of_capture
from workers.probes.capture import capture, reference_states
from workers.probes.rows import choose_rows
from workers.progress import PULSE

CPU = torch.device("cpu")


def stacks_of(model):
    return examine(model).stacks


PROBE = Probe(
    data=BuiltinData(builtin="python-docs", digest=corpus_digest("python-docs")),
    rows=64,
    sequence_length=16,
)


def test_states_are_the_blocks_outputs_before_the_final_norm(make_language_model, tmp_path):
    model, tokenizer = make_language_model("gpt2")
    rows = choose_rows(PROBE, 32, tokenizer, tmp_path)
    states = capture(model.base_model, stacks_of(model), rows, CPU)
    with torch.no_grad():
        hidden = model.base_model.eval()(
            input_ids=rows.input_ids, output_hidden_states=True
        ).hidden_states
    assert len(states) == 4
    for layer in range(3):  # transformers' last one is after the final norm
        torch.testing.assert_close(states[layer], hidden[layer][rows.sequence, rows.position])
    normed = model.transformer.ln_f(states[3])
    torch.testing.assert_close(normed, hidden[3][rows.sequence, rows.position])


def test_every_family_gives_a_state_a_layer(family, make_language_model, tmp_path):
    model, tokenizer = make_language_model(family)
    rows = choose_rows(PROBE, 32, tokenizer, tmp_path)
    states = capture(model.base_model, stacks_of(model), rows, CPU)
    assert [tuple(state.shape) for state in states] == [(64, 32)] * 4
    assert all(state.dtype == torch.float32 and state.isfinite().all() for state in states)
    assert not torch.equal(states[1], states[2])


def test_probing_leaves_the_model_as_it_was(make_language_model, tmp_path):
    model, tokenizer = make_language_model("rwkv")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()
    rows = choose_rows(PROBE, 32, tokenizer, tmp_path)
    with torch.autocast("cpu", torch.bfloat16):
        first = capture(model.base_model, stacks_of(model), rows, CPU)
    second = capture(model.base_model, stacks_of(model), rows, CPU)
    assert model.training
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(not module._forward_hooks for module in model.modules())


def test_the_reference_is_captured_once_and_shared(make_language_model, tmp_path):
    model, tokenizer = make_language_model("gpt2")
    stacks = stacks_of(model)
    rows = choose_rows(PROBE, 32, tokenizer, tmp_path)
    loaded = PretrainedModel(model, tokenizer, measure_facts(model), "one content")
    first = reference_states(loaded, "any", tmp_path, model.base_model, stacks, rows, CPU)
    assert len(first.rows.sequence) == len(first.states[0]) == 64 - first.rows.left_out
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    kept = reference_states(loaded, "any", tmp_path, model.base_model, stacks, rows, CPU)
    assert all(torch.equal(a, b) for a, b in zip(first.states, kept.states, strict=True))
    assert torch.equal(first.rows.position, kept.rows.position)


def test_runs_that_begin_together_take_turns_at_a_reference(
    make_language_model, tmp_path, monkeypatch
):
    model, tokenizer = make_language_model("gpt2")
    rows = choose_rows(PROBE, 32, tokenizer, tmp_path)
    loaded = PretrainedModel(model, tokenizer, measure_facts(model), "one content")
    turns = []

    @contextmanager
    def taken(_, need):
        turns.append(need())
        yield

    monkeypatch.setattr(of_capture, "turn", taken)
    for _ in range(2):
        of_model = (model.base_model, stacks_of(model), rows, CPU)
        reference_states(loaded, "any", tmp_path, *of_model)
    assert turns == [True, False], "who comes second has no need of one"


def test_a_reference_is_shared_by_no_other_model_and_no_other_rows(make_language_model, tmp_path):
    model, tokenizer = make_language_model("gpt2")
    stacks = stacks_of(model)
    rows = choose_rows(PROBE, 32, tokenizer, tmp_path)
    loaded = [
        PretrainedModel(model, tokenizer, measure_facts(model), content) for content in ("a", "b")
    ]
    first = reference_states(loaded[0], "any", tmp_path, model.base_model, stacks, rows, CPU)
    with torch.no_grad():
        model.transformer.wte.weight.mul_(2)
    other = reference_states(loaded[1], "any", tmp_path, model.base_model, stacks, rows, CPU)
    assert not torch.equal(first.states[1], other.states[1])
    fewer = choose_rows(PROBE.model_copy(update={"rows": 40}), 32, tokenizer, tmp_path)
    again = reference_states(loaded[0], "any", tmp_path, model.base_model, stacks, fewer, CPU)
    assert len(again.states[1]) == 40 - again.rows.left_out


def test_weights_that_give_no_finite_state_are_refused_before_training(
    make_language_model, tmp_path
):
    model, tokenizer = make_language_model("gpt2")
    with torch.no_grad():
        model.transformer.h[1].mlp.c_fc.weight[0, 0] = math.nan
    rows = choose_rows(PROBE, 32, tokenizer, tmp_path)
    loaded = PretrainedModel(model, tokenizer, measure_facts(model), "broken")
    with pytest.raises(UserError, match="model broken: hidden state 2 is not finite"):
        reference_states(loaded, "broken", tmp_path, model.base_model, stacks_of(model), rows, CPU)


def odd(how):
    """Return a hook that makes of a block's output something else than a state a token."""

    def changed(_, __, output):
        hidden = output[0] if isinstance(output, tuple) else output
        return (
            torch.cat([hidden[:, :1], hidden], dim=1) if how == "prompt" else hidden.flatten(0, 1)
        )

    return changed


@pytest.mark.parametrize(
    ("how", "said"), [("prompt", r"block 3 .*\(16, 17, 32\)"), ("flat", r"block 3 .*\(256, 32\)")]
)
def test_a_block_that_gives_another_thing_than_a_state_a_token_is_named(
    make_language_model, tmp_path, how, said
):
    model, tokenizer = make_language_model("gpt2")
    rows = choose_rows(PROBE, 32, tokenizer, tmp_path)
    stacks = stacks_of(model)
    stacks[0].blocks[2].register_forward_hook(odd(how))
    with pytest.raises(UserError, match=said):
        capture(model.base_model, stacks, rows, CPU)


def test_a_state_in_a_list_is_a_state(make_language_model, tmp_path):
    model, tokenizer = make_language_model("gpt2")
    rows = choose_rows(PROBE, 32, tokenizer, tmp_path)
    stacks = stacks_of(model)
    before = capture(model.base_model, stacks, rows, CPU)
    stacks[0].blocks[2].register_forward_hook(lambda *call: [call[2]], prepend=True)
    with pytest.raises(TypeError):  # the model itself cannot go on with it
        capture(model.base_model, stacks, rows, CPU)
    stacks[0].blocks[2].register_forward_hook(lambda *call: call[2][0])
    after = capture(model.base_model, stacks, rows, CPU)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_block_that_runs_twice_has_a_state_a_call(make_language_model, tmp_path):
    model, tokenizer = make_language_model("gpt2")
    rows = choose_rows(PROBE, 32, tokenizer, tmp_path)
    model.transformer.h[1] = model.transformer.h[2]
    stacks = stacks_of(model)
    assert stacks[0].calls == (0, 1, 1)
    states = capture(model.base_model, stacks, rows, CPU)
    with torch.no_grad():
        hidden = model.base_model.eval()(
            input_ids=rows.input_ids, output_hidden_states=True
        ).hidden_states
    for layer in range(3):
        torch.testing.assert_close(states[layer], hidden[layer][rows.sequence, rows.position])
    assert not torch.equal(states[2], states[3])


def test_a_block_that_runs_another_number_of_times_than_before_is_refused(
    make_language_model, tmp_path
):
    model, tokenizer = make_language_model("gpt2")
    rows = choose_rows(PROBE, 32, tokenizer, tmp_path)
    stacks = stacks_of(model)
    model.transformer.h[1] = model.transformer.h[2]
    with pytest.raises(UserError, match=r"block 3 .* ran as call 2, in another order"):
        capture(model.base_model, stacks, rows, CPU)


def test_a_block_that_is_passed_over_is_missed(make_language_model, tmp_path):
    model, tokenizer = make_language_model("gpt2")
    rows = choose_rows(PROBE, 32, tokenizer, tmp_path)
    stacks = stacks_of(model)
    model.transformer.h = model.transformer.h[:2]
    with pytest.raises(UserError, match=r"ran 2 times in one forward pass, and 3 times when"):
        capture(model.base_model, stacks, rows, CPU)


def test_every_forward_pass_shows_that_the_work_gets_on(make_language_model, tmp_path, monkeypatch):
    model, tokenizer = make_language_model("gpt2")
    rows = choose_rows(PROBE, 32, tokenizer, tmp_path)
    stacks, beats = stacks_of(model), []
    monkeypatch.setattr(PULSE, "beat", lambda: beats.append(1))
    capture(model.base_model, stacks, rows, CPU)
    assert len(rows.input_ids) == 64
    assert len(beats) == 64 / 16
