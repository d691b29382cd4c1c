"""Answers that share a sequence, with and without seeing each other."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sweeps.errors import Impossible, UserError
from sweeps.spec import BuiltinData, Objective
from workers.data.conversations import written_messages, written_pairs
from workers.models.pretrained import ModelFacts, PretrainedModel
from workers.objectives.objective import IGNORED
from workers.objectives.registry import build_objective
from workers.objectives.sft import best_fit

DATA = BuiltinData(builtin="python-docs", digest="0" * 64)
FACTS = ModelFacts("", "", "", 3, 32, 0)
ROWS = {
    "prompt": [f"what does function {k} return " * (1 + k % 2) for k in range(7)],
    "completion": [f" the value {k} " + "and more " * (k % 4) for k in range(7)],
}


class Run:
    seed = 3

    def __init__(self, batch_size):
        self.batch_size = batch_size


def prepared(packing, made, length=64, rows=ROWS):
    language_model, tokenizer = made
    objective = build_objective(Objective(kind="sft", data=DATA, packing=packing))
    model = objective.build_model(PretrainedModel(language_model, tokenizer, FACTS)).eval()
    arrays = objective.tokenise(tokenizer, rows, length)
    return objective, model, objective.batch(arrays, Run(len(arrays["input_ids"])), 1)


@pytest.mark.parametrize("family", ["gpt2", "codegen", "gpt_neox"])
def test_packed_examples_that_see_themselves_alone_have_the_loss_of_a_row_each(
    family, make_language_model
):
    made = make_language_model(family)
    losses, targets = [], []
    for packing in ("none", "within"):
        objective, model, batch = prepared(packing, made)
        losses.append(objective.loss_sum(model, batch).detach())
        targets.append(objective.targets(batch))
    assert targets[0] == targets[1]
    torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-5)
    assert len(batch["input_ids"]) < len(ROWS["prompt"])


def test_what_is_cut_as_it_comes_has_every_token_once_and_sees_what_was_before(
    make_language_model,
):
    made = make_language_model("gpt2")
    objective, model, batch = prepared("across", made, 32)
    written = list(written_pairs(made[1], ROWS["prompt"], ROWS["completion"]))
    stream = np.concatenate([one.ids for one in written])
    rows = {tuple(row) for row in batch["input_ids"].tolist()}
    assert rows == {tuple(row) for row in stream[: len(stream) // 32 * 32].reshape(-1, 32)}
    answered = batch["labels"] != IGNORED
    assert (batch["labels"][answered] == batch["input_ids"][answered]).all()
    assert torch.isfinite(objective.loss_sum(model, batch))


@pytest.mark.parametrize("family", ["mamba", "rwkv", "opt"])
def test_a_model_whose_examples_would_read_each_other_is_refused(family, make_language_model):
    with pytest.raises(Impossible, match=r"packing: within.*none or across"):
        prepared("within", make_language_model(family))
    objective, model, batch = prepared("none", make_language_model(family))
    assert torch.isfinite(objective.loss_sum(model, batch))


@given(st.lists(st.integers(1, 20), min_size=1, max_size=60))
def test_best_fit_puts_everything_somewhere_once_and_overfills_nothing(sizes):
    rows = best_fit(sizes, 20)
    assert sorted(number for row in rows for number in row) == list(range(len(sizes)))
    assert max(sum(sizes[number] for number in row) for row in rows) <= 20
    # No two rows would fit into one.
    filled = sorted(sum(sizes[number] for number in row) for row in rows)
    assert len(filled) < 2 or filled[0] + filled[1] > 20


def test_prompts_that_leave_no_room_for_an_answer_are_refused(make_language_model):
    with pytest.raises(UserError, match="no answer has a token in its first 8"):
        prepared("none", make_language_model("gpt2"), 8)


def test_messages_without_a_template_and_those_that_it_refuses_are_named(make_language_model):
    import copy

    tokenizer = copy.deepcopy(make_language_model("gpt2")[1])
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    with pytest.raises(Impossible, match="no chat template"):
        list(written_messages(tokenizer, [talk]))
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}"
        "{{ raise_exception('no system role') }}{% endif %}{{ m['content'] }}{% endfor %}"
    )
    refused = [{"role": "system", "content": "x"}, *talk]
    with pytest.raises(UserError, match=r"example 2: .*refuses the messages: no system role"):
        list(written_messages(tokenizer, [talk, refused]))


def test_a_template_that_writes_earlier_answers_otherwise_is_refused(make_language_model):
    import copy

    tokenizer = copy.deepcopy(make_language_model("gpt2")[1])
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '[' + m['role'] + ']' }}"
        "{% if m['role'] == 'assistant' and loop.last %}{{ '(thinks)' }}{% endif %}"
        "{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    one = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "so it is"}]
    (written,) = written_messages(tokenizer, [one])
    assert tokenizer.decode(written.ids[written.answered]) == "(thinks)so it is"
    with pytest.raises(UserError, match=r"example 1: .*answer 1 otherwise where more"):
        list(written_messages(tokenizer, [[*one, *one]]))
