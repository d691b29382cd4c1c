"""What a run ended with, taken home: transformers and peft give the same logits, bit for bit."""

import json

import pytest
import torch
from small_run import DOCS, make_run
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

from sweeps.errors import UserError
from sweeps.sources.corpora import corpus_digest, standin_digest
from sweeps.spec import (
    BuiltinData,
    EqualStep,
    Evaluation,
    Execution,
    Lora,
    ModelSpec,
    NoAdapter,
    Objective,
    StandinModel,
)
from sweeps.store.store import Store
from workers.objectives.registry import build_objective
from workers.train import train
from workers.weights.kept import kept_model, recorded_run
from workers.weights.model_folder import write_model_folder

CPU = torch.device("cpu")
FAMILIES = ("gpt2", "bert", "mamba", "opt", "gpt_neox")
# Of decoders one, of encoders one and what is neither; the other decoders with `make test-all`.
SEVERAL = [
    pytest.param(each, marks=pytest.mark.slow if each in ("opt", "gpt_neox") else ())
    for each in FAMILIES
]
IDS = torch.arange(24).view(2, 12) + 9
PACKAGES = BuiltinData(builtin="python-packages", digest=corpus_digest("python-packages"))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


def a_run(family, adapter=None, objective=None, **execution):
    pretraining = "mlm" if family == "bert" else "clm"
    source = StandinModel(
        standin=family,
        layers=2,
        width=32,
        vocabulary=400,
        pretrain_steps=3,
        pretraining=pretraining,
        digest=standin_digest(),
    )
    kind = {"kind": pretraining, "data": DOCS}
    if pretraining == "mlm":
        kind["mask_probability"] = 0.3
    return make_run(
        model=ModelSpec(name=family, source=source),
        objective=objective or Objective(**kind),
        adapter=adapter or NoAdapter(),
        control=EqualStep(),
        steps=4,
        execution=Execution(**{"keep": "final", **execution}),
    )


def carried_out(run, store):
    """Return the model as the training loop left it, in eval mode; what it was scored on, and the
    last scores, are its ``examples`` and ``scores``."""
    from workers import train as loop

    seen = []
    whole = loop.assemble
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loop, "assemble", lambda *a: seen.append(whole(*a)) or seen[-1])
        last = list(train(run, store, CPU))[-1]
    assert last.status == "finished"
    model = seen[0].engine.model.eval()
    if run.evaluation is not None:
        model.examples, model.scores = seen[0].evaluator._held_out, last.evaluation
    return model


@torch.no_grad()
def logits(model):
    output = model(input_ids=IDS)
    return output if isinstance(output, torch.Tensor) else output.logits


@pytest.mark.parametrize("family", SEVERAL)
def test_a_folder_gives_the_logits_the_run_ended_with(store, tmp_path, family):
    run = a_run(family)
    ended = carried_out(run, store)
    files = write_model_folder(kept_model(run, store), store.cache, tmp_path / "m", merge=False)
    assert {"config.json", "model.safetensors", "tokenizer.json", "depthsweep.json"} <= set(files)
    auto = AutoModelForMaskedLM if family == "bert" else AutoModelForCausalLM
    home = auto.from_pretrained(tmp_path / "m").eval()
    assert torch.equal(logits(home), logits(ended))
    assert len(AutoTokenizer.from_pretrained(tmp_path / "m")) == home.config.vocab_size
    # The last batch costs what the objective says it does.
    objective = build_objective(run.objective)
    labels = IDS.masked_fill(IDS % 3 != 0, -100)
    batch = {"input_ids": IDS, "labels": labels} if family == "bert" else {"input_ids": IDS}
    with torch.no_grad():
        wanted = objective.loss_sum(ended, batch) / objective.targets(batch)
        told = home(input_ids=IDS, labels=labels if family == "bert" else IDS).loss
    torch.testing.assert_close(told, wanted)


@pytest.mark.parametrize("family", SEVERAL)
def test_a_folder_reproduces_the_last_evaluation_in_transformers_alone(store, tmp_path, family):
    held_out = Evaluation(fraction=0.2, batches=3)
    run = a_run(family).model_copy(update={"evaluation": held_out})
    ended = carried_out(run, store)
    write_model_folder(kept_model(run, store), store.cache, tmp_path / "m", merge=False)
    auto = AutoModelForMaskedLM if family == "bert" else AutoModelForCausalLM
    home = auto.from_pretrained(tmp_path / "m").eval()
    total = targets = 0.0
    for index in range(len(ended.examples)):
        batch = ended.examples.batch(index)
        labels = batch.get("labels", batch["input_ids"])
        counted = int((labels[:, 0 if family == "bert" else 1 :] != -100).sum())
        with torch.no_grad():
            total += float(home(input_ids=batch["input_ids"], labels=labels).loss) * counted
        targets += counted
    assert ended.scores["step"] == run.steps
    assert total / targets == pytest.approx(ended.scores["loss"], rel=2e-6)


@pytest.mark.parametrize("family", SEVERAL)
def test_an_adapter_is_read_by_peft_and_merged_ones_by_transformers(store, tmp_path, family):
    from peft import PeftModel

    run = a_run(family, Lora(rank=2, alpha=3.0))
    ended = logits(carried_out(run, store))
    files = write_model_folder(kept_model(run, store), store.cache, tmp_path / "a", merge=False)
    assert "model.safetensors" not in files
    auto = AutoModelForMaskedLM if family == "bert" else AutoModelForCausalLM
    base = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    bare = auto.from_pretrained(base["base_model_name_or_path"]).eval()
    untrained = logits(bare)
    assert torch.equal(logits(PeftModel.from_pretrained(bare, tmp_path / "a").eval()), ended)
    assert not torch.equal(untrained, ended)
    write_model_folder(kept_model(run, store), store.cache, tmp_path / "b", merge=True)
    torch.testing.assert_close(
        logits(auto.from_pretrained(tmp_path / "b").eval()), ended, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("adapter", [None, Lora(targets=("c_attn",))])
def test_a_head_of_the_objectives_own_lies_beside_the_model(store, tmp_path, adapter):
    from safetensors.torch import load_file

    objective = Objective(kind="classification", data=PACKAGES, labels=6, pooling="last")
    run = a_run("gpt2", adapter, objective)
    ended = carried_out(run, store)
    merge = adapter is not None
    write_model_folder(kept_model(run, store), store.cache, tmp_path / "m", merge=merge)
    head = load_file(tmp_path / "m" / "head.safetensors")
    said = json.loads((tmp_path / "m" / "depthsweep.json").read_text())
    assert said["head"] == {"file": "head.safetensors", "tensors": ["head.bias", "head.weight"]}
    assert (said["objective"]["pooling"], said["step"], said["merged"]) == ("last", 4, merge)
    home = AutoModel.from_pretrained(tmp_path / "m").eval()
    with torch.no_grad():
        states = home(input_ids=IDS).last_hidden_state[:, -1]
        wanted = ended(IDS, torch.ones_like(IDS))
    found = states @ head["head.weight"].T + head["head.bias"]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_settings_of_training_are_not_what_is_written(store, tmp_path):
    """Dropout and caches are off while a run lasts; who trains on from the folder has them."""
    run = a_run("gpt2")
    list(train(run, store, CPU))
    trained = kept_model(run, store)
    from transformers import AutoConfig

    from workers.loading import folder_of

    base = folder_of("m", run.model.source, store.cache)
    before = AutoConfig.from_pretrained(base).to_dict()
    write_model_folder(trained, store.cache, tmp_path / "m", merge=False)
    after = AutoConfig.from_pretrained(tmp_path / "m").to_dict()
    changed = {k for k in before if before[k] != after.get(k) and not k.startswith("_")}
    assert changed <= {"dtype", "architectures", "transformers_version"}


def test_a_run_without_weights_says_what_to_do(store):
    run = a_run("opt", keep="none").model_copy(update={"seed": 5})
    folder = store.run(run.run_id)
    next(iter_ := train(run, store, CPU))
    iter_.close()
    with pytest.raises(UserError, match="no record of what ran yet"):
        recorded_run(folder)
    list(train(run, store, CPU))
    with pytest.raises(UserError, match="kept no weights") as refused:
        kept_model(recorded_run(folder), store)
    said = str(refused.value)
    assert "keep: final" in said
    assert f"--only {run.run_id} --force" in said
    assert len(said) < 300


def test_what_is_there_is_not_written_over_and_nothing_is_merged_that_is_no_adapter(
    store, tmp_path
):
    run = a_run("gpt2")
    list(train(run, store, CPU))
    trained = kept_model(run, store)
    with pytest.raises(UserError, match="there is no adapter"):
        write_model_folder(trained, store.cache, tmp_path / "m", merge=True)
    assert not (tmp_path / "m").exists()
    with pytest.raises(UserError, match="is there already"):
        write_model_folder(trained, store.cache, tmp_path, merge=False)


def test_damaged_weights_are_refused(store):
    run = a_run("gpt2").model_copy(update={"seed": 6})
    list(train(run, store, CPU))
    (layer, *_) = store.run(run.run_id).checkpoints()[-1].glob("layer-0001*")
    content = bytearray(layer.read_bytes())
    content[-5] ^= 1
    layer.write_bytes(bytes(content))
    with pytest.raises(UserError, match="damaged"):
        kept_model(run, store)
