"""Supervised fine-tuning and preferences against TRL, on the same rows and weights."""

import copy

import pytest
import torch

from sweeps.spec import OBJECTIVE_DEFAULTS, BuiltinData, Objective
from workers.data.array_file import Arrays
from workers.models.pretrained import ModelFacts, PretrainedModel
from workers.objectives.preference import SIDES, _log_probability
from workers.objectives.registry import build_objective

trl = pytest.importorskip("trl")
datasets = pytest.importorskip("datasets")

DATA = BuiltinData(builtin="python-docs", digest="0" * 64)
FACTS = ModelFacts("", "", "", 3, 32, 0)
# The turns of a conversation, framed as ChatML does; what the model writes is marked for TRL.
TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<' + message['role'] + '>' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
    "{% else %}{{ message['content'] + eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
PLAIN = TEMPLATE.replace("{% generation %}", "").replace("{% endgeneration %}", "")
PROMPTS = [f"what does function {k} return " for k in range(6)]
ANSWERS = [f" the value of item {k} " + "and more " * (k % 3) for k in range(6)]
WORSE = [f" nothing {k} " * (1 + k % 2) for k in range(6)]


class Run:
    seed, batch_size = 3, 6


@pytest.fixture
def chatting(make_language_model):
    language_model, tokenizer = make_language_model("gpt2", seed=1)
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = TEMPLATE
    language_model.eval()
    return language_model, tokenizer


def prepared(kind, chatting, rows, **options):
    language_model, tokenizer = chatting
    objective = build_objective(
        Objective(kind=kind, data=DATA, **{**OBJECTIVE_DEFAULTS[kind], **options})
    )
    model = objective.build_model(PretrainedModel(language_model, tokenizer, FACTS)).eval()
    arrays: Arrays = objective.tokenise(tokenizer, rows, 96)
    return objective, model, arrays


def config(kind, folder, **options):
    shared = {"per_device_train_batch_size": 6, "use_cpu": True, "bf16": False, "max_length": 96}
    quiet = {"report_to": "none", "disable_tqdm": True, "gradient_checkpointing": False}
    return kind(output_dir=str(folder), **{**shared, **quiet, **options})


def said(who, text):
    return [{"role": who, "content": text}]


PAIRS = {
    "texts": (PROMPTS, ANSWERS),
    "messages": ([said("user", one) for one in PROMPTS], [said("assistant", a) for a in ANSWERS]),
}


def sft_loss(trainer, language_model):
    batch = next(iter(trainer.get_train_dataloader()))
    return trainer.compute_loss(language_model, batch).detach()


@pytest.mark.parametrize("form", PAIRS)
def test_the_loss_of_answers_is_trl_s(form, chatting, tmp_path):
    prompts, completions = PAIRS[form]
    rows = {"prompt": prompts, "completion": completions}
    objective, model, arrays = prepared("sft", chatting, rows)
    batch = objective.batch(arrays, Run, 1)
    language_model, tokenizer = chatting
    trainer = trl.SFTTrainer(
        copy.deepcopy(language_model),
        args=config(trl.SFTConfig, tmp_path, completion_only_loss=True),
        train_dataset=datasets.Dataset.from_dict(rows),
        processing_class=tokenizer,
    )
    loss = objective.loss_sum(model, batch) / objective.targets(batch)
    torch.testing.assert_close(loss, sft_loss(trainer, trainer.model.eval()), rtol=1e-5, atol=1e-6)


TALKS = [
    [
        *said("user", PROMPTS[k]),
        *said("assistant", ANSWERS[k]),
        *said("user", "and then"),
        *said("assistant", WORSE[k]),
    ]
    for k in range(6)
]


@pytest.mark.parametrize("template", [TEMPLATE, PLAIN], ids=["marked", "unmarked"])
def test_all_answers_of_a_conversation_count_as_in_trl(template, chatting, tmp_path):
    language_model, tokenizer = chatting
    tokenizer.chat_template = template
    objective, model, arrays = prepared(
        "sft", chatting, {"messages": TALKS}, read_roles=("messages",)
    )
    batch = objective.batch(arrays, Run, 1)
    marked = copy.deepcopy(tokenizer)
    marked.chat_template = TEMPLATE
    trainer = trl.SFTTrainer(
        copy.deepcopy(language_model),
        args=config(trl.SFTConfig, tmp_path, assistant_only_loss=True),
        train_dataset=datasets.Dataset.from_dict({"messages": TALKS}),
        processing_class=marked,
    )
    loss = objective.loss_sum(model, batch) / objective.targets(batch)
    torch.testing.assert_close(loss, sft_loss(trainer, trainer.model.eval()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", PAIRS)
def test_the_loss_of_preferences_is_trl_s(form, chatting, tmp_path):
    prompts, completions = PAIRS[form]
    worse = WORSE if form == "texts" else [said("assistant", one) for one in WORSE]
    rows = {"prompt": prompts, "chosen": completions, "rejected": worse}
    objective, model, arrays = prepared("preference", chatting, rows, beta=0.7)
    batch = objective.batch(arrays, Run, 1)
    with torch.no_grad():
        references = {f"{s}_reference": _log_probability(model, batch, s) for s in SIDES}
    language_model, tokenizer = chatting
    moved = copy.deepcopy(model)
    torch.manual_seed(4)
    for parameter in moved.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    trainer = trl.DPOTrainer(
        copy.deepcopy(moved.language_model),
        ref_model=copy.deepcopy(language_model),
        args=config(trl.DPOConfig, tmp_path, beta=0.7),
        train_dataset=datasets.Dataset.from_dict(rows),
        processing_class=tokenizer,
    )
    trainer.model.eval()
    wanted = trainer.compute_loss(trainer.model, next(iter(trainer.get_train_dataloader())))
    loss = objective.loss_sum(moved, {**batch, **references}) / objective.targets(batch)
    torch.testing.assert_close(loss, wanted.detach(), rtol=1e-4, atol=1e-5)
    assert abs(float(wanted.detach()) - 0.6931) > 1e-3
