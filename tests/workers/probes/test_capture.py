import numpy as np
import pytest
import torch

from sweeps.declaration.corpora import corpus_digest
from sweeps.errors import UserError
from sweeps.spec import BuiltinData, ModelSpec, Probe, StandinModel
from workers.controls.layer_groups import find_blocks
from workers.probes.capture import capture, choose_rows, reference_states

CPU = torch.device("cpu")
PROBE = Probe(
    data=BuiltinData(builtin="python-docs", digest=corpus_digest("python-docs")),
    rows=64,
    sequence_length=16,
)


@pytest.fixture
def rows(tokenizers, tmp_path):
    return choose_rows(PROBE, tokenizers["mlm"], tmp_path)


def test_rows_are_fixed_and_leave_out_the_first_position_and_special_tokens(
    tokenizers, tmp_path, rows
):
    again = choose_rows(PROBE, tokenizers["mlm"], tmp_path)
    assert (again.sequence == rows.sequence).all()
    assert (again.position == rows.position).all()
    assert len(rows.sequence) == 64
    tokens = rows.input_ids[rows.sequence, rows.position].numpy()
    assert not np.isin(tokens, tokenizers["mlm"].all_special_ids).any()
    assert (rows.position > 0).all()
    assert len({(int(s), int(p)) for s, p in zip(rows.sequence, rows.position, strict=True)}) == 64


def test_another_seed_chooses_other_rows(tokenizers, tmp_path, rows):
    other = choose_rows(PROBE.model_copy(update={"seed": 1}), tokenizers["mlm"], tmp_path)
    assert not torch.equal(other.input_ids, rows.input_ids)


def test_too_many_rows_are_refused(tokenizers, tmp_path):
    probe = PROBE.model_copy(update={"rows": 10_000_000})
    with pytest.raises(UserError, match="lower `rows`"):
        choose_rows(probe, tokenizers["mlm"], tmp_path)


def test_states_are_the_blocks_outputs_before_the_final_norm(make_language_model, tmp_path):
    model, tokenizer = make_language_model("gpt2")
    rows = choose_rows(PROBE, tokenizer, tmp_path)
    states = capture(model.base_model, find_blocks(model), rows, CPU)
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
    rows = choose_rows(PROBE, tokenizer, tmp_path)
    states = capture(model.base_model, find_blocks(model), rows, CPU)
    assert [tuple(state.shape) for state in states] == [(64, 32)] * 4
    assert all(state.dtype == torch.float32 and state.isfinite().all() for state in states)
    assert not torch.equal(states[1], states[2])


def test_probing_leaves_the_model_as_it_was(make_language_model, tmp_path):
    model, tokenizer = make_language_model("rwkv")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()
    rows = choose_rows(PROBE, tokenizer, tmp_path)
    with torch.autocast("cpu", torch.bfloat16):
        first = capture(model.base_model, find_blocks(model), rows, CPU)
    second = capture(model.base_model, find_blocks(model), rows, CPU)
    assert model.training
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(not module._forward_hooks for module in model.modules())


def test_the_reference_is_captured_once_and_shared(make_language_model, tmp_path):
    model, tokenizer = make_language_model("gpt2")
    blocks = find_blocks(model)
    rows = choose_rows(PROBE, tokenizer, tmp_path)
    source = StandinModel(standin="gpt2", pretraining="clm", digest="0" * 64)
    spec = ModelSpec(name="any", source=source)
    first = reference_states(spec, tmp_path, model.base_model, blocks, rows, CPU)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    kept = reference_states(spec, tmp_path, model.base_model, blocks, rows, CPU)
    assert all(torch.equal(a, b) for a, b in zip(first, kept, strict=True))


def test_a_reference_is_shared_by_no_other_model_and_no_other_rows(make_language_model, tmp_path):
    model, tokenizer = make_language_model("gpt2")
    blocks = find_blocks(model)
    rows = choose_rows(PROBE, tokenizer, tmp_path)
    specs = [
        ModelSpec(
            name="any", source=StandinModel(standin="gpt2", pretraining="clm", digest=digest * 64)
        )
        for digest in "01"
    ]
    first = reference_states(specs[0], tmp_path, model.base_model, blocks, rows, CPU)
    with torch.no_grad():
        model.transformer.wte.weight.mul_(2)
    other = reference_states(specs[1], tmp_path, model.base_model, blocks, rows, CPU)
    assert not torch.equal(first[1], other[1])
    fewer = choose_rows(PROBE.model_copy(update={"rows": 40}), tokenizer, tmp_path)
    again = reference_states(specs[0], tmp_path, model.base_model, blocks, fewer, CPU)
    assert len(again[1]) == 40
