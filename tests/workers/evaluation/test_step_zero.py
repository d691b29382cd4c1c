"""Before the first step a run scores what the untouched model scores with transformers alone."""

import json
import math

import pytest
import torch
from small_run import make_run
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

from sweeps.declaration.entries.sweep_spec import DataEntry, ModelEntry
from sweeps.declaration.sources import resolve_data, resolve_model
from sweeps.spec import DATA_FORMS, OBJECTIVE_DEFAULTS, Evaluation, ModelSpec, Objective
from sweeps.store.store import Store
from workers.assembly import assemble
from workers.evaluation.held_out import HeldOut
from workers.ranks.process_group import ALONE
from workers.train import train

CPU = torch.device("cpu")
WORDS = ("one", "two", "three", "value", "returns", "item", "of", "the", "list", "and", "a")
LENGTH, BATCH = 16, 4


def texts(count, first):
    return [
        " ".join(WORDS[(i * k + first) % len(WORDS)] for k in range(5 + i % 20))
        for i in range(1, count + 1)
    ]


@pytest.fixture
def folder(make_language_model, tmp_path):
    """Return ``folder(family)``: a model as transformers saves it, with train and test files."""

    def made(family):
        language_model, tokenizer = make_language_model(family, seed=7)
        language_model.save_pretrained(tmp_path / family)
        tokenizer.save_pretrained(tmp_path / family)
        for name, count in (("train", 30), ("test", 19)):
            lines = [
                json.dumps({"text": text, "label": k % 3})
                for k, text in enumerate(texts(count, len(name)))
            ]
            (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
        return tmp_path

    return made


def run_on(folder, family, kind):
    def data(name):
        return resolve_data(
            DataEntry(file=f"{name}.jsonl"), tuple(DATA_FORMS[kind][0].roles), folder
        )

    options = {**OBJECTIVE_DEFAULTS[kind], **({"labels": 3} if kind == "classification" else {})}
    source = resolve_model("mine", {"mine": ModelEntry(folder=family)}, folder)
    return make_run(
        model=ModelSpec(name="mine", source=source),
        objective=Objective(kind=kind, data=data("train"), **options),
        evaluation=Evaluation(data=data("test")),
        sequence_length=LENGTH,
        batch_size=BATCH,
        steps=3,
    )


def at_step_zero(run, root):
    store = Store(root / "store")
    store.identify()
    progress = list(train(run, store, CPU))
    assert progress[-1].status == "finished"
    return store.run(run.run_id).done()["evaluation"]["first"]


def plain_texts(folder):
    lines = (folder / "test.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_clm_scores_what_transformers_does(folder):
    root = folder("gpt2")
    found = at_step_zero(run_on(root, "gpt2", "clm"), root)

    model = AutoModelForCausalLM.from_pretrained(root / "gpt2").eval()
    tokenizer = AutoTokenizer.from_pretrained(root / "gpt2")
    stream = [
        token
        for row in plain_texts(root)
        for token in [*tokenizer(row["text"]).input_ids, tokenizer.eos_token_id]
    ]
    rows = torch.tensor(stream[: len(stream) // LENGTH * LENGTH]).reshape(-1, LENGTH)
    assert len(rows) % BATCH  # the last batch is not a whole one
    with torch.no_grad():
        loss = float(model(input_ids=rows, labels=rows).loss)
    # float32 sums in batches of another size.
    assert found["loss"] == pytest.approx(loss, abs=2e-6)
    assert found["perplexity"] == pytest.approx(math.exp(loss), rel=2e-6)


def test_mlm_scores_what_transformers_does(folder):
    root = folder("bert")
    run = run_on(root, "bert", "mlm")
    found = at_step_zero(run, root)

    model = AutoModelForMaskedLM.from_pretrained(root / "bert").eval()
    tokenizer = AutoTokenizer.from_pretrained(root / "bert")
    held_out = HeldOut(run, tokenizer, root / "other cache")
    total, targets = 0.0, 0
    with torch.no_grad():
        for index in range(len(held_out)):
            batch = held_out.batch(index)
            count = int((batch["labels"] != -100).sum())
            total += count * float(model(**batch).loss)
            targets += count
    assert targets > 10
    assert set(found) == {"loss"}
    assert found["loss"] == pytest.approx(total / targets, abs=2e-6)


def test_classification_scores_what_transformers_does(folder):
    root = folder("gpt2")
    run = run_on(root, "gpt2", "classification")
    found = at_step_zero(run, root)

    # The head is new: what the run's seed draws.
    parts = assemble(run, Store(root / "another store"), CPU, ALONE)
    head = parts.engine.model.head
    model = AutoModel.from_pretrained(root / "gpt2").eval()
    tokenizer = AutoTokenizer.from_pretrained(root / "gpt2")
    logits, labels = [], []
    with torch.no_grad():
        for row in plain_texts(root):
            ids = tokenizer(row["text"], return_tensors="pt").input_ids[:, :LENGTH]
            logits.append(head(model(input_ids=ids).last_hidden_state.mean(dim=1)))
            labels.append(row["label"])
    logits, labels = torch.cat(logits), torch.tensor(labels)
    loss = float(torch.nn.functional.cross_entropy(logits, labels))
    assert found["loss"] == pytest.approx(loss, abs=2e-6)
    assert found["accuracy"] == float((logits.argmax(dim=1) == labels).double().mean())
