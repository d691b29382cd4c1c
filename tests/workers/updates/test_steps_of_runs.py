"""Whatever a step is, a run that was stopped ends with the bytes of one that was not."""

import json

import pytest
import torch
from small_run import make_run

from sweeps.declaration.entries.sweep_spec import DataEntry
from sweeps.declaration.sources import resolve_data
from sweeps.errors import UserError
from sweeps.reading.tables import open_store
from sweeps.sources.content import folder_digest
from sweeps.spec import (
    EqualStep,
    Execution,
    FolderModel,
    LayerRates,
    ModelSpec,
    Objective,
    Optimizer,
)
from sweeps.store.schema import TABLES
from sweeps.store.store import Store
from workers.train import train

CPU = torch.device("cpu")
EACH = Execution(part_steps=2, checkpoint_share=1)
STEPS = {
    "sgd": (Optimizer(rule="sgd", learning_rate=0.1, schedule="cosine"), EqualStep()),
    "lion": (
        Optimizer(rule="lion", learning_rate=1e-3, weight_decay=0.1, decay_all=False),
        EqualStep(target="learning_rate", unit="matrix"),
    ),
    "adafactor": (
        Optimizer(rule="adafactor", learning_rate=1e-2, schedule="wsd"),
        LayerRates(rates=(0.2, 0.5, 1.0)),
    ),
    "muon": (Optimizer(rule="muon", learning_rate=1e-3), EqualStep(target="budget")),
    "adamw": (Optimizer(learning_rate=1e-3), LayerRates(rates="rgn", scope="all")),
}


@pytest.fixture
def stores(share_cache, tmp_path):
    """Two stores that share what runs have alike."""
    found = []
    for name in ("whole", "stopped"):
        found.append(Store(share_cache(tmp_path / name)))
    return found


def parts(store, run):
    folder = store.run(run.run_id)
    return {
        (table, folder.last_step_of(path)): path.read_bytes()
        for table in TABLES
        for path in folder.parts(table)
    }


def layers(store, run):
    frame = open_store(store.root).layers().collect()
    return frame.filter(frame["run_id"] == run.run_id)


def whole_and_stopped(run, stores):
    """Return the parts of a run that went through, and of one that was stopped after step 4."""
    list(train(run, stores[0], CPU))
    progress = train(run, stores[1], CPU)
    while next(progress).step < 4:
        pass
    progress.close()
    assert list(train(run, stores[1], CPU))[-1].resumed_from >= 2
    return parts(stores[0], run), parts(stores[1], run)


@pytest.mark.parametrize("rule", STEPS)
def test_a_stopped_run_ends_as_one_that_was_not(rule, stores):
    optimizer, control = STEPS[rule]
    run = make_run(optimizer=optimizer, control=control, execution=EACH, seed=3)
    whole, stopped = whole_and_stopped(run, stores)
    assert whole
    assert whole == stopped


@pytest.fixture
def dropping(make_language_model, tmp_path):
    """A folder of a model, and how to give it rates of dropout."""

    def make(**rates):
        model, tokenizer = make_language_model("gpt2")
        folder = tmp_path / "model"
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **rates}))
        digest = folder_digest(folder, trusted=False)
        source = FolderModel(folder=str(folder), digest=digest, pretraining="clm")
        return ModelSpec(name="dropping", source=source)

    return make


def losses(store, run):
    frame = open_store(store.root).steps().collect()
    return frame.filter(frame["run_id"] == run.run_id).sort("step")["loss"].to_list()


@pytest.mark.parametrize("again", [False, True])
def test_dropout_is_drawn_by_seed_step_and_micro_batch(again, dropping, stores):
    model = dropping(resid_pdrop=0.3, embd_pdrop=0.1)
    how = EACH.model_copy(update={"checkpoint_activations": again, "micro_batch_size": 2})
    run = make_run(model=model, dropout=True, execution=how)
    whole, stopped = whole_and_stopped(run, stores)
    assert whole == stopped
    without = make_run(model=model, execution=how)
    assert without.run_id != run.run_id
    list(train(without, stores[0], CPU))
    assert losses(stores[0], run) != losses(stores[0], without)


def test_a_model_without_dropout_of_its_own_is_refused(dropping, stores):
    run = make_run(model=dropping(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0), dropout=True)
    with pytest.raises(UserError, match=r"model dropping: has no dropout of its own"):
        list(train(run, stores[0], CPU))


def test_rates_of_layers_multiply_what_the_optimizer_would_do(stores):
    rates = (0.0, 0.5, 1.0)
    free = make_run(steps=1, probe=make_run().probe.model_copy(update={"every": 1}))
    held = free.model_copy(update={"control": LayerRates(rates=rates)})
    for run in (free, held):
        list(train(run, stores[0], CPU))
    ratio = layers(stores[0], held)["update_norm"] / layers(stores[0], free)["update_norm"]
    assert ratio.to_list() == pytest.approx([1.0, *rates, 1.0], abs=1e-6)


def test_relative_gradient_norms_make_the_largest_one(stores):
    probe = make_run().probe.model_copy(update={"every": 2})
    run = make_run(steps=2, control=LayerRates(rates="rgn"), probe=probe)
    list(train(run, stores[0], CPU))
    blocks = layers(stores[0], run).filter(step=1, group="block")
    found = blocks["coefficient"].to_list()
    assert max(found) == 1.0
    assert min(found) < 0.99
    # The first step's own gradient is one of the five.
    own = blocks["grad_norm"] / blocks["weight_norm"]
    assert found == pytest.approx((own / own.max()).to_list(), rel=0.3)


@pytest.mark.parametrize(
    ("control", "said"),
    [
        (LayerRates(rates=(0.5, 1.0)), "layer_rates has 2 rates, and the model has 3 blocks"),
        (LayerRates(rates=(0.5, 1.0, 1.0), scope="all"), "blocks, and embedding and head: give 5"),
    ],
)
def test_a_list_of_another_length_is_refused(control, said, stores):
    with pytest.raises(UserError, match=said):
        list(train(make_run(control=control), stores[0], CPU))


def test_a_learning_rate_as_target_is_the_scheduled_one(stores):
    optimizer = Optimizer(learning_rate=2e-3, schedule="wsd", warmup_steps=2, decay_share=0.4)
    run = make_run(optimizer=optimizer, control=EqualStep(target="learning_rate"))
    list(train(run, stores[0], CPU))
    steps = open_store(stores[0].root).steps().collect().sort("step")
    blocks = layers(stores[0], run).filter(group="block").sort("step", "layer")
    moved = (blocks["update_norm"] / blocks["weight_norm"]).to_list()
    rates = [rate for rate in steps["scheduled_learning_rate"] for _ in range(3)]
    assert moved == pytest.approx(rates, rel=1e-5)


def test_a_control_that_is_shown_more_batches_than_a_preference_run_reads_sees_numbers(
    stores, tmp_path
):
    """What an answer's likelihood was before is asked of those batches' examples too."""
    rows = [
        {"prompt": f"what is {k} ", "chosen": f"it is {k}", "rejected": f"nobody knows {k} at all"}
        for k in range(60)
    ]
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    roles = ("prompt", "chosen", "rejected")
    data = resolve_data(DataEntry(file=str(file)), roles, tmp_path)
    run = make_run(
        steps=2,
        control=LayerRates(rates="rgn"),
        objective=Objective(kind="preference", data=data, beta=0.1),
        probe=make_run().probe.model_copy(update={"every": 2}),
    )
    assert list(train(run, stores[0], CPU))[-1].status == "finished"
    found = layers(stores[0], run).filter(step=1, group="block")["coefficient"].to_list()
    assert max(found) == 1.0
