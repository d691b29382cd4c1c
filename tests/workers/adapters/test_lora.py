"""LoRA: what gets one, whose layer it is, and that nothing else of the model moves."""

import polars as pl
import pytest
import torch
from small_run import DOCS, make_run

from sweeps.errors import UserError
from sweeps.sources.corpora import standin_digest
from sweeps.spec import (
    TIED_STANDINS,
    EqualStep,
    Execution,
    Lora,
    ModelSpec,
    Objective,
    StandinModel,
)
from sweeps.store.store import Store
from workers.adapters.lora import add_lora, change_of, merge, target_names
from workers.controls.layer_groups import group_layers
from workers.models.pretrained import PretrainedModel, measure_facts
from workers.train import train

CPU = torch.device("cpu")
ATTENTION = {
    "bert": ("attention.self.*",),
    "gpt2": ("c_attn",),
    "opt": ("q_proj", "v_proj"),
    "gpt_neox": ("query_key_value",),
    "mamba": ("in_proj",),
}


@pytest.fixture
def pretrained(make_language_model):
    def make(family, **shape):
        model, tokenizer = make_language_model(family, **shape)
        model.eval()
        return PretrainedModel(model, tokenizer, measure_facts(model))

    return make


def groups_of(pretrained):
    model = pretrained.language_model
    ids = torch.arange(12).view(2, 6) + 5
    return group_layers(model, lambda: model(input_ids=ids), pretrained.stacks)


def test_every_pair_of_matrices_is_its_blocks_in_every_family(pretrained, family):
    found = pretrained(family)
    add_lora(Lora(rank=3), 0, family, found)
    grouping = groups_of(found)
    blocks = 1 if family in TIED_STANDINS else 3
    assert [group.layer for group in grouping.groups] == list(range(1, 1 + blocks))
    assert grouping.unreached == ()
    for group, block in zip(grouping.groups, found.blocks, strict=True):
        assert {id(p) for p in group.parameters} <= {id(p) for p in block.parameters()}
        assert all("lora_A" in name or "lora_B" in name for name in group.names)
        assert len(group.names) % 2 == 0


@pytest.mark.parametrize("named", ATTENTION)
def test_targets_and_layers_choose_what_gets_one(pretrained, named):
    found = pretrained(named, layers=4)
    adapter = Lora(rank=2, targets=ATTENTION[named], layers=("blocks 2-3",))
    names = target_names(adapter, found, "here")
    last = {name.rpartition(".")[2] for name in names}
    every = target_names(Lora(), found, "here")
    assert len(names) == 2 * len(last) < len(every)
    add_lora(adapter, 0, named, found)
    assert [group.layer for group in groups_of(found).groups] == [2, 3]


def test_until_the_first_step_the_model_computes_what_it_did(pretrained, family):
    found = pretrained(family)
    ids = torch.arange(12).view(2, 6) + 5
    before = found.language_model(input_ids=ids).logits
    add_lora(Lora(), 0, family, found)
    assert torch.equal(found.language_model(input_ids=ids).logits, before)


def test_the_seed_alone_decides_where_an_adapter_begins(pretrained):
    made = []
    for seed, before in ((3, 1), (3, 2), (4, 1)):
        found = pretrained("gpt2")
        torch.manual_seed(before)
        state = torch.get_rng_state()
        add_lora(Lora(), seed, "gpt2", found)
        assert torch.equal(torch.get_rng_state(), state)
        made.append([p.clone() for p in found.language_model.parameters() if p.requires_grad])
    same, other = (
        [torch.equal(a, b) for a, b in zip(made[0], one, strict=True)] for one in made[1:]
    )
    assert all(same)
    assert not all(other)


@pytest.mark.parametrize("family", ["gpt2", "opt"])
def test_merging_adds_what_an_adapter_adds(pretrained, family):
    found = pretrained(family)
    model = found.language_model
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    add_lora(Lora(rank=2, alpha=6.0, layers=("blocks 3",)), 0, family, found)
    added = {}
    for name, part in model.named_modules():
        if hasattr(part, "lora_A"):
            a, b = part.lora_A["default"].weight, part.lora_B["default"].weight
            torch.nn.init.normal_(b)
            added[name] = change_of(part, a, b)
    ids = torch.arange(12).view(2, 6) + 5
    adapted = model(input_ids=ids).logits
    merge(model)
    after = dict(model.named_parameters())
    assert after.keys() == before.keys()
    for name, was in before.items():
        change = added.get(name.removesuffix(".weight"), torch.zeros_like(was))
        torch.testing.assert_close(after[name], was + change, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(model(input_ids=ids).logits, adapted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("adapter", "said"),
    [
        (Lora(targets=("q_proj",)), "'q_proj', or none that can have one; they are attn.c_attn"),
        (Lora(targets=("ln_1",)), "no linear map of its blocks is 'ln_1'"),
        (Lora(layers=("blocks 4-9",)), "layers 'blocks 4-9' are none of its; it has blocks 1-3"),
        (Lora(layers=("decoder blocks 1",)), "it has blocks 1-3"),
    ],
)
def test_what_is_not_there_is_refused_by_name(pretrained, adapter, said):
    with pytest.raises(UserError, match="model mine: adapter") as refused:
        add_lora(adapter, 0, "mine", pretrained("gpt2"))
    assert said in str(refused.value)
    assert len(str(refused.value)) < 300


def test_what_peft_takes_for_incompatible_is_left_out_by_rule_and_refused_by_name(pretrained):
    found = pretrained("mamba")
    assert {name.rpartition(".")[2] for name in target_names(Lora(), found, "")} == {
        *("in_proj", "x_proj")
    }
    # dt_proj is never called: its weight is read by the scan.
    for name in ("out_proj", "dt_proj"):
        with pytest.raises(UserError, match=name):
            target_names(Lora(targets=(name,)), found, "here")


# --------------------------------------------------------------------------------------- whole runs
def lora_run(family="opt", **fields):
    pretraining = "mlm" if family == "bert" else "clm"
    source = StandinModel(
        standin=family,
        layers=3,
        width=32,
        vocabulary=400,
        pretrain_steps=3,
        pretraining=pretraining,
        digest=standin_digest(),
    )
    objective = Objective(
        kind=pretraining, data=DOCS, mask_probability=0.3 if pretraining == "mlm" else None
    )
    return make_run(
        **{
            "model": ModelSpec(name=family, source=source),
            "objective": objective,
            "adapter": Lora(rank=2),
            "execution": Execution(part_steps=3, checkpoint_share=1),
            **fields,
        }
    )


def test_a_run_moves_its_adapter_by_equal_steps_and_keeps_nothing_else(share_cache, tmp_path):
    store = Store(share_cache(tmp_path))
    run = lora_run(control=EqualStep(target="median"))
    seen = []
    for progress in train(run, store, CPU):
        seen.append(progress)
        if progress.step == 4:
            break
    folder = store.run(run.run_id)
    layers = sorted(path.name for path in folder.checkpoints()[-1].glob("layer-*"))
    assert layers == [f"layer-000{k}.safetensors" for k in (1, 2, 3)]
    assert list(train(run, store, CPU))[-1].status == "finished"
    rows = pl.concat([pl.read_parquet(str(path)) for path in folder.parts("layers")])
    assert set(rows["group"]) == {"block"}
    ratio = (rows["update_norm"] / rows["weight_norm"]).to_list()
    for step in range(7):
        assert ratio[3 * step : 3 * step + 3] == pytest.approx([ratio[3 * step]] * 3, rel=1e-5)
    profile = pl.concat([pl.read_parquet(str(path)) for path in folder.parts("profiles")])
    last = profile.filter(pl.col("step") == 7)["procrustes"].to_list()
    assert last[0] == 0.0  # the embedding is not trained
    assert all(change > 1e-4 for change in last[1:])


def test_a_resumed_run_has_the_rows_of_one_that_was_not_stopped(share_cache, tmp_path):
    run = lora_run("bert")
    tables = []
    for name, stops in (("a", (5,)), ("b", ())):
        store = Store(share_cache(tmp_path / name))
        for stop in (*stops, None):
            for progress in train(run, store, CPU):
                if progress.step == stop:
                    break
        folder = store.run(run.run_id)
        tables.append(pl.concat([pl.read_parquet(str(p)) for p in folder.parts("layers")]))
    assert tables[0].equals(tables[1])
